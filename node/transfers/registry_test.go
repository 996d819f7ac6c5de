package transfers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRunningTransfersAreListedUntilTheyEndTheOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		if len(r.Running()) != 0 {
			t.Error("a new registry has transfers")
		}
		began := time.Now()
		first := r.Begin(Images, "a", true, 100)
		time.Sleep(time.Second)
		second := r.Begin(Catalogue, "b", false, -1)
		first.Add(40)
		first.Add(2)
		second.Add(7)
		want := []Transfer{
			{Kind: Images, Incoming: true, Node: "a", Bytes: 42, Total: 100, Began: began},
			{Kind: Catalogue, Node: "b", Bytes: 7, Total: -1, Began: began.Add(time.Second)},
		}
		if got := r.Running(); !slices.Equal(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		first.End()
		first.End()
		if got := r.Running(); !slices.Equal(got, want[1:]) {
			t.Errorf("after the end: %+v", got)
		}
		if in, out := r.Moved(); in != 42 || out != 7 {
			t.Errorf("moved %d in, %d out", in, out)
		}
	})
}

func TestTheListIsBounded(t *testing.T) {
	var r Registry
	for range maxListed + 10 {
		r.Begin(Images, "a", true, -1)
	}
	if n := len(r.Running()); n != maxListed {
		t.Errorf("%d listed", n)
	}
}

func kindOf(path string) Kind {
	if strings.HasPrefix(path, "/archive/") {
		return Images
	}
	return None
}

// roundTripper answers as a handler does, in memory.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBodiesOfAnswersAreCountedAsTheyAreRead(t *testing.T) {
	var r Registry
	status := http.StatusOK
	client := r.Transport(roundTripper(func(q *http.Request) (*http.Response, error) {
		if status == 0 {
			return nil, errors.New("no such peer")
		}
		return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader("0123456789")), ContentLength: 10}, nil
	}), kindOf)
	ask := func(path string) (*http.Response, error) {
		q, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://nodeb"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return client.RoundTrip(q)
	}
	answer, err := ask("/archive/pack/7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(answer.Body, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	got := r.Running()
	if len(got) != 1 || got[0].Bytes != 4 || got[0].Total != 10 || got[0].Node != "nodeb" || !got[0].Incoming || got[0].Kind != Images {
		t.Errorf("half read: %+v", got)
	}
	if rest, err := io.ReadAll(answer.Body); string(rest) != "456789" || err != nil {
		t.Errorf("the rest: %q, %v", rest, err)
	}
	if len(r.Running()) != 0 {
		t.Error("a body that is read to its end is still listed")
	}
	if answer, err = ask("/archive/pack/8"); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if len(r.Running()) != 0 {
		t.Error("a body that was closed is still listed")
	}
	for _, other := range []struct {
		path   string
		status int
	}{{"/node/ping", 200}, {"/archive/pack/7", 503}, {"/archive/pack/7", 0}} {
		status = other.status
		answer, err := ask(other.path)
		if len(r.Running()) != 0 {
			t.Errorf("%s, status %d is listed", other.path, other.status)
		}
		if (err != nil) != (other.status == 0) {
			t.Errorf("%s: %v", other.path, err)
		}
		if answer != nil {
			answer.Body.Close()
		}
	}
	if in, _ := r.Moved(); in != 10 {
		t.Errorf("%d bytes came in", in)
	}
}

func TestAnswersAreCountedAsTheyAreWritten(t *testing.T) {
	var r Registry
	var during []Transfer
	h := r.Handler(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Length", "6")
		io.WriteString(w, "abc")
		during = r.Running()
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		io.WriteString(w, "def")
	}), kindOf, func(*http.Request) string { return "asker" })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/archive/pack/7", nil))
	if w.Body.String() != "abcdef" {
		t.Errorf("answered %q", w.Body)
	}
	if len(during) != 1 || during[0].Bytes != 3 || during[0].Total != 6 || during[0].Node != "asker" || during[0].Incoming {
		t.Errorf("half written: %+v", during)
	}
	if len(r.Running()) != 0 {
		t.Error("listed after the handler has returned")
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/raft/vote", nil))
	if len(during) != 0 {
		t.Errorf("a question is listed: %+v", during)
	}
	if _, out := r.Moved(); out != 6 {
		t.Errorf("%d bytes went out", out)
	}
}
