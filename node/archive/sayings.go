package archive

import (
	"sync"

	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
	"pelago/replication/catalog"
)

// saying is what the fact of a series takes from one of its instances.
type saying struct {
	issuer     string
	arrived    int64 // Unix microseconds
	attributes []byte
}

// says picks it from an instance's record and header. The header's data set is
// given the sender's character set if it names none.
func says(r *archivepb.Instance, h *dicom.Header) saying {
	return saying{r.Issuer, r.Arrived, catalog.Attributes(assume(h, r.Charset))}
}

// maxSayings bounds the instances that sayings holds, a few hundred bytes each, at
// most 8 KiB: about what comes while the journal gathers.
const maxSayings = 1024

// sayings holds what the first instances of series say from their arrival until
// the series is announced, a moment later, so that their headers are not read
// and parsed again for it. Whoever does not find an instance here reads it.
type sayings struct {
	mu    sync.Mutex
	said  map[uint64]saying  // by local number
	order [maxSayings]uint64 // the last numbers put, as a ring
	next  int
}

// put keeps what an instance says, and lets go of the oldest.
func (y *sayings) put(number uint64, s saying) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.said == nil {
		y.said = make(map[uint64]saying, maxSayings)
	}
	delete(y.said, y.order[y.next])
	y.said[number] = s
	y.order[y.next] = number
	y.next = (y.next + 1) % maxSayings
}

// take returns what an instance says, and keeps it no longer.
func (y *sayings) take(number uint64) (saying, bool) {
	if y == nil {
		return saying{}, false
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	s, ok := y.said[number]
	delete(y.said, number)
	return s, ok
}
