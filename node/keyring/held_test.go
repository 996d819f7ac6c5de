package keyring

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pelago/cluster/call"
	"pelago/cluster/fault"
)

// local calls a handler without a network.
type local struct{ handler http.Handler }

func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestANodeSaysWhatItHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found()
		at := uint64(0)
		peers := call.NewClient(local{a.Handler(func() uint64 { return at })})
		held, err := Ask(t.Context(), peers, a.id())
		if err != nil || !slices.Equal(held.Epochs, []uint32{1}) || held.StudyKeys != 0 {
			t.Fatalf("%+v, %v", held, err)
		}
		at = 12
		if held, err = Ask(t.Context(), peers, a.id()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			epoch uint32
			at    uint64
			opens bool
		}{{1, 12, true}, {1, 3, true}, {1, 13, false}, {2, 12, false}} {
			if held.Opens(c.epoch, c.at) != c.opens {
				t.Errorf("epoch %d at %d: %t", c.epoch, c.at, !c.opens)
			}
		}
		b := w.make() // holds nothing
		b.start()
		if held, err = Ask(t.Context(), call.NewClient(local{b.Handler(nil)}), b.id()); err != nil || len(held.Epochs) != 0 || held.Opens(1, 0) {
			t.Errorf("who holds nothing: %+v, %v", held, err)
		}
	})
}

func TestAnAnswerThatIsNoneIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		kind   fault.Kind
	}{
		"garbage":             {"garbage", fault.Invalid},
		"another version":     {`{"version":2,"epochs":[1]}`, fault.Invalid},
		"epochs out of order": {`{"version":1,"epochs":[2,1]}`, fault.Invalid},
		"very long":           {`{"version":1,"epochs":[` + strings.Repeat("1,", maxHeldBody) + `1]}`, fault.Full},
	} {
		peers := call.NewClient(local{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.answer)) })})
		if held, err := Ask(t.Context(), peers, "a"); err == nil || c.kind == fault.Invalid && !fault.Is(err, c.kind) {
			t.Errorf("%s: %+v, %v", name, held, err)
		}
	}
}
