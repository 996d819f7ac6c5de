package recall

import "sync"

const (
	// hedgeShare is the part of what is asked for that may be asked for twice, in
	// bytes: 5 % (DESIGN §7).
	hedgeShare = 20
	// maxSaved bounds what quiet times save for bad ones: a wide read or two.
	maxSaved = 16 << 20
)

// budget is what may be asked for twice. Its owner asks for bytes, of which a
// twentieth is put by.
type budget struct {
	mu    sync.Mutex
	saved int64 // bytes, times hedgeShare
}

func (b *budget) earn(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = min(b.saved+bytes, maxSaved*hedgeShare)
}

// spend takes bytes if so many were put by.
func (b *budget) spend(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.saved < bytes*hedgeShare {
		return false
	}
	b.saved -= bytes * hedgeShare
	return true
}
