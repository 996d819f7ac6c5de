package call

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

// local sends every request to one handler, as a transport of cluster/port would.
type local struct{ handler http.Handler }

func (l local) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

func TestEveryKindSurvivesTheWire(t *testing.T) {
	for _, kind := range fault.Kinds() {
		c := NewClient(local{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			Refuse(w, fault.New(kind, "because"))
		})})
		_, err := c.Do(t.Context(), "node", http.MethodGet, "/x", nil)
		if fault.KindOf(err) != kind || err == nil || !strings.Contains(err.Error(), "because") {
			t.Errorf("%v comes back as %v", kind, err)
		}
		if !Answered(err) {
			t.Errorf("%v is not known to be the peer's answer", kind)
		}
	}
}

func TestAnAnswerOfNobodysIsUnavailable(t *testing.T) {
	for _, header := range []string{"", "200", "-1", "x"} {
		c := NewClient(local{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(kindHeader, header)
			w.WriteHeader(http.StatusNotFound)
		})})
		if _, err := c.Do(t.Context(), "node", http.MethodGet, "/x", nil); !fault.Is(err, fault.Unavailable) || !Answered(err) {
			t.Errorf("%q: %v", header, err)
		}
	}
}

type broken struct{ err error }

func (b broken) RoundTrip(*http.Request) (*http.Response, error) { return nil, b.err }

func TestAPeerThatIsNotThereIsUnavailable(t *testing.T) {
	if _, err := NewClient(broken{errors.New("refused")}).Do(t.Context(), "n", http.MethodGet, "/x", nil); !fault.Is(err, fault.Unavailable) || Answered(err) {
		t.Error(err)
	}
	denied := fault.New(fault.Denied, "revoked")
	if _, err := NewClient(broken{denied}).Do(t.Context(), "n", http.MethodGet, "/x", nil); !fault.Is(err, fault.Denied) || Answered(err) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewClient(broken{ctx.Err()}).Do(ctx, "n", http.MethodGet, "/x", nil); !fault.Is(err, fault.Canceled) {
		t.Error(err)
	}
}

func TestReadBoundsABody(t *testing.T) {
	if b, err := Read(strings.NewReader("abc"), 3); err != nil || string(b) != "abc" {
		t.Error(b, err)
	}
	if _, err := Read(strings.NewReader("abcd"), 3); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
