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

func TestCallsOfOneKindWithOneNodeAreOneTransferUntilAMomentAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Registry
		if len(r.Running()) != 0 {
			t.Error("a new registry has transfers")
		}
		began := time.Now()
		first := r.Begin(Images, "a", true)
		time.Sleep(time.Second)
		second := r.Begin(Catalogue, "b", false)
		third := r.Begin(Images, "a", true)
		first.Add(40)
		third.Add(2)
		second.Add(7)
		images := Transfer{Kind: Images, Incoming: true, Node: "a", Calls: 2, Bytes: 42, Began: began}
		catalogue := Transfer{Kind: Catalogue, Node: "b", Calls: 1, Bytes: 7, Began: began.Add(time.Second)}
		if got, want := r.Running(), []Transfer{images, catalogue}; !slices.Equal(got, want) {
			t.Errorf("%+v, want %+v", got, want)
		}
		first.End()
		first.End()
		third.End()
		time.Sleep(lingers - time.Nanosecond)
		fourth := r.Begin(Images, "a", true)
		fourth.Add(8)
		images.Calls, images.Bytes = 1, 50
		if got, want := r.Running(), []Transfer{images, catalogue}; !slices.Equal(got, want) {
			t.Errorf("the next in time: %+v, want %+v", got, want)
		}
		fourth.End()
		time.Sleep(lingers)
		if got, want := r.Running(), []Transfer{catalogue}; !slices.Equal(got, want) {
			t.Errorf("after the end: %+v, want %+v", got, want)
		}
		fifth := r.Begin(Images, "a", true)
		if got := r.Running()[1]; got.Bytes != 0 || got.Began == began {
			t.Errorf("a new one goes on with %+v", got)
		}
		fifth.End()
		second.End()
		if in, out := r.Moved(); in != 50 || out != 7 {
			t.Errorf("moved %d in, %d out", in, out)
		}
	})
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
	if len(got) != 1 || got[0].Bytes != 4 || got[0].Calls != 1 || got[0].Node != "nodeb" || !got[0].Incoming || got[0].Kind != Images {
		t.Errorf("half read: %+v", got)
	}
	if rest, err := io.ReadAll(answer.Body); string(rest) != "456789" || err != nil {
		t.Errorf("the rest: %q, %v", rest, err)
	}
	if r.Running()[0].Calls != 0 {
		t.Error("a body that is read to its end is still under way")
	}
	if answer, err = ask("/archive/pack/8"); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if r.Running()[0].Calls != 0 {
		t.Error("a body that was closed is still under way")
	}
	for _, other := range []struct {
		path   string
		status int
	}{{"/node/ping", 200}, {"/archive/pack/7", 503}, {"/archive/pack/7", 0}} {
		status = other.status
		answer, err := ask(other.path)
		if got := r.Running(); len(got) != 1 || got[0].Calls != 0 {
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
	if len(during) != 1 || during[0].Bytes != 3 || during[0].Calls != 1 || during[0].Node != "asker" || during[0].Incoming {
		t.Errorf("half written: %+v", during)
	}
	if r.Running()[0].Calls != 0 {
		t.Error("under way after the handler has returned")
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/raft/vote", nil))
	if len(during) != 1 || during[0].Calls != 0 {
		t.Errorf("a question is listed: %+v", during)
	}
	if _, out := r.Moved(); out != 6 {
		t.Errorf("%d bytes went out", out)
	}
}
