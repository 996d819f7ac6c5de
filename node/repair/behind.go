package repair

import (
	"net/http"
	"time"
)

const (
	// behindAtOnce of repair's calls are answered at a time while others use this node,
	// and the next ones wait so long at most: who asks for a window gives up later.
	behindAtOnce = 1
	behindFor    = 2 * time.Second
)

// Behind has repair's calls of other nodes wait behind who uses this node: few are
// answered at a time while it is busy. None is refused, for repair must come to an end.
func Behind(next http.Handler, busy func() bool) http.Handler {
	turns := make(chan struct{}, behindAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if IsBackground(r) && busy() {
			wait := time.NewTimer(behindFor)
			defer wait.Stop()
			select {
			case turns <- struct{}{}:
				defer func() { <-turns }()
			case <-wait.C:
			case <-r.Context().Done():
				return // nobody is there to be told
			}
		}
		next.ServeHTTP(w, r)
	})
}
