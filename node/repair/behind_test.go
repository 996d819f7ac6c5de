package repair

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Calls of repair are answered one at a time at a node that others use, and none waits
// for long; those of readers never wait, and nobody does where nobody reads.
func TestRepairsCallsWaitBehindReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy atomic.Bool
		var inside atomic.Int64
		release := make(chan struct{})
		h := Behind(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			inside.Add(1)
			<-release
			inside.Add(-1)
		}), busy.Load)
		ask := func(of string) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/held/shard", nil)
			if of != "" {
				r.Header.Set(background, of)
			}
			go h.ServeHTTP(httptest.NewRecorder(), r)
			synctest.Wait()
		}
		expect := func(what string, n int64) {
			t.Helper()
			if got := inside.Load(); got != n {
				t.Errorf("%s: %d are answered, not %d", what, got, n)
			}
		}
		end := func() {
			for inside.Load() > 0 {
				release <- struct{}{}
				synctest.Wait()
			}
		}
		ask("1")
		ask("1")
		expect("alone", 2)
		end()
		busy.Store(true)
		ask("1")
		ask("1")
		ask("1")
		expect("beside readers", behindAtOnce)
		ask("")
		ask("")
		expect("readers", behindAtOnce+2)
		passes(behindFor)
		expect("after a while", behindAtOnce+4)
		end()
	})
}
