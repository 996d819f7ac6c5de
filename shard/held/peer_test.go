package held

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// link carries a client's calls to a handler over HTTP/2, or over nothing.
type link struct {
	server *httptest.Server
	client *http.Client
	change func(http.ResponseWriter, *http.Request) http.ResponseWriter // nil: as it is
	sent   atomic.Int64                                                 // bytes of answers
}

// connect serves a holder over real HTTP/2, and returns a client of it.
func connect(t *testing.T, h *holder, o HandlerOptions) (*Client, *link) {
	t.Helper()
	if o.Held == nil {
		o.Held = h.Store
	}
	if o.Source == nil {
		o.Source = h.Store
	}
	o.Peer = func(*http.Request) (authority.Name, error) { return authority.Name{Node: "asker"}, nil }
	handler := NewHandler(o)
	l := &link{}
	l.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w = &countedWriter{w, l}
		if l.change != nil {
			w = l.change(w, r)
		}
		handler.ServeHTTP(w, r)
	}))
	l.server.EnableHTTP2 = true
	l.server.StartTLS()
	l.client = l.server.Client()
	t.Cleanup(l.server.Close)
	return NewClient(call.NewClient(l), members{h}), l
}

type countedWriter struct {
	http.ResponseWriter
	l *link
}

func (c *countedWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *countedWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.l.sent.Add(int64(n))
	return n, err
}

func (l *link) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Host = strings.TrimPrefix(l.server.URL, "https://")
	return l.client.Transport.RoundTrip(r)
}

type members struct{ h *holder }

func (m members) SigningKey(node string) (ed25519.PublicKey, error) {
	if node != m.h.self.ID() {
		return nil, fault.New(fault.Denied, "no member")
	}
	return m.h.self.Public(), nil
}

// offers are shards to be sent.
func offers(shards ...offered) (all []Offer) {
	slices.SortFunc(shards, func(a, b offered) int { return Compare(a.Name, b.Name) })
	for _, s := range shards {
		all = append(all, Offer{s.Claim, func(_ context.Context, w io.Writer) error {
			_, err := w.Write(s.bytes)
			return err
		}})
	}
	return all
}

func TestShardsTravelThereAndBack(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	c, _ := connect(t, h, HandlerOptions{})
	node := h.self.ID()
	a, b, big := encode(t, 1, small, 300_000), encode(t, 2, small, 7_000), encode(t, 3, larger, 9<<20)
	for i, all := range [][]offered{{a.offer(0), b.offer(0)}, {big.offer(1)}, {big.offer(4)}, {a.offer(0), b.offer(0)}} {
		l, err := c.Upload(t.Context(), node, offers(all...))
		if err != nil {
			t.Fatal(err)
		}
		for j, o := range all {
			want := Stored
			if i == 3 {
				want = Known
			}
			if l.Outcomes[j] != want || !l.Receipt.Covers(o.Entry) {
				t.Errorf("upload %d: %v, receipt for %v", i, l.Outcomes, l.Receipt.Entries)
			}
		}
	}
	l, err := c.Receipts(t.Context(), node, []Entry{big.entry(1), big.entry(2), big.entry(4)})
	if err != nil || !slices.Equal(l.Outcomes, []Outcome{Known, Missing, Known}) || len(l.Receipt.Entries) != 2 {
		t.Errorf("receipts: %v, %v", l, err)
	}
	for _, i := range []int{1, 4} {
		head, err := c.Head(t.Context(), node, big.entry(i))
		if err != nil || head.Root() != big.head.Root() {
			t.Fatal(err)
		}
		body, _ := bodyOf(head, i)
		leaves := (body + seal.LeafBytes - 1) / seal.LeafBytes
		sh, _ := stripe.Open(bytes.NewReader(big.shards[i]), int64(len(big.shards[i])))
		for _, r := range [][2]int64{{0, 1}, {0, leaves}, {leaves - 1, 1}, {63, 66}, {64, 64}, {leaves - 70, 70}} {
			var steps []int
			got, err := c.Range(t.Context(), node, head, i, r[0], r[1], func(data []byte) { steps = append(steps, len(data)) })
			want, _, _ := sh.Range(r[0], r[1])
			if err != nil || !bytes.Equal(got, want) || steps[len(steps)-1] != len(want) || len(steps) != int(r[1]+63)/64 {
				t.Errorf("leaves %v of shard %d: %d bytes in %v, %v", r, i, len(got), steps, err)
			}
		}
		if _, err := c.Range(t.Context(), node, head, i, leaves, 1, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("behind the end: %v", err)
		}
	}
	head, tail, err := c.Tail(t.Context(), node, big.entry(1))
	offset, length := big.head.TailRange()
	if err != nil || head.Root() != big.head.Root() || !bytes.Equal(tail, big.ciphertext[offset:offset+length]) {
		t.Errorf("tail of %d bytes, %v", len(tail), err)
	}
	if _, _, err := c.Tail(t.Context(), node, big.entry(4)); !fault.Is(err, fault.NotFound) {
		t.Errorf("a tail of a shard without one: %v", err)
	}
	if _, tail, err = c.Tail(t.Context(), node, a.entry(0)); err != nil || int64(len(tail)) == 0 {
		t.Errorf("a small one's tail of %d bytes: %v", len(tail), err)
	}
	wrong := big.entry(1)
	wrong.Root[0] ^= 1
	if _, err := c.Head(t.Context(), node, wrong); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a head of another root: %v", err)
	}
	if _, err := c.Head(t.Context(), node, big.entry(2)); !fault.Is(err, fault.NotFound) {
		t.Errorf("a shard that is not there: %v", err)
	}
}

// What a range costs beyond its bytes is its proof.
func TestARangeCostsLittleMoreThanItsBytes(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	c, l := connect(t, h, HandlerOptions{})
	m := encode(t, 3, larger, 24<<20)
	h.land(m.offer(0))
	for _, count := range []int64{10, 64, 300} {
		before := l.sent.Load()
		data, err := c.Range(t.Context(), h.self.ID(), m.head, 0, 77, count, nil)
		if err != nil {
			t.Fatal(err)
		}
		if more := float64(l.sent.Load()-before)/float64(len(data)) - 1; more > 0.005 {
			t.Errorf("%d leaves cost %.2f %% more", count, 100*more)
		}
	}
}

// Failures keep their kinds, and a refusal comes before the bytes are sent.
func TestARefusalComesBeforeTheBytes(t *testing.T) {
	m := encode(t, 3, larger, 24<<20)
	h := open(t, vfs.NewMem(), func(o *Options) { o.Limit = func() int64 { return 1 << 20 } })
	defer h.close()
	c, _ := connect(t, h, HandlerOptions{})
	var wrote atomic.Int64
	all := offers(m.offer(0))
	write := all[0].Write
	all[0].Write = func(ctx context.Context, w io.Writer) error {
		return write(ctx, writerFunc(func(p []byte) (int, error) {
			for len(p) > 0 {
				n, err := w.Write(p[:min(len(p), 64<<10)])
				wrote.Add(int64(n))
				if p = p[n:]; err != nil {
					return 0, err
				}
			}
			return len(m.shards[0]), nil
		}))
	}
	if _, err := c.Upload(t.Context(), h.self.ID(), all); !fault.Is(err, fault.Full) || !call.Answered(err) {
		t.Errorf("%v, want full", err)
	}
	if n := wrote.Load(); n > 6<<20 {
		t.Errorf("%d bytes of %d were written for nothing", n, len(m.shards[0]))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A sender whose own bytes fail hears of that, and nothing is stored.
func TestASendersFailureIsItsOwn(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	c, _ := connect(t, h, HandlerOptions{})
	mine := errors.New("my disk")
	seed := uint64(3) // a shard each: the server may notice late that one does not come any more
	for name, test := range map[string]struct {
		write func(*made, io.Writer) error
		want  func(error) bool
	}{
		"error": {func(m *made, w io.Writer) error { w.Write(m.shards[0][:1<<20]); return mine },
			func(err error) bool { return errors.Is(err, mine) }},
		"short": {func(m *made, w io.Writer) error { _, err := w.Write(m.shards[0][:1<<20]); return err },
			func(err error) bool { return fault.Is(err, fault.Invalid) }},
		"long": {func(m *made, w io.Writer) error {
			_, err := w.Write(append(bytes.Clone(m.shards[0]), 1))
			return err
		},
			func(err error) bool { return fault.Is(err, fault.Invalid) }},
	} {
		m := encode(t, seed, larger, 4<<20)
		seed++
		write := func(_ context.Context, w io.Writer) error { return test.write(m, w) }
		if _, err := c.Upload(t.Context(), h.self.ID(), []Offer{{m.claim(0), write}}); err == nil || !test.want(err) {
			t.Errorf("%s: %v", name, err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for _, arriving := h.Bytes(); arriving != 0 && time.Now().Before(deadline); _, arriving = h.Bytes() {
			time.Sleep(time.Millisecond) // the server notices a little later
		}
	}
	if n := len(h.blobs()); n != 0 {
		t.Errorf("%d blobs", n)
	}
	h.land(encode(t, seed, larger, 4<<20).offer(0))
}

// A peer that sends other bytes than the shard's is caught.
func TestOtherBytesAreCaught(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	c, l := connect(t, h, HandlerOptions{})
	m := encode(t, 3, larger, 4<<20)
	h.land(m.offer(0))
	node := h.self.ID()
	for at := range 3 {
		l.change = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter {
			return &flipping{ResponseWriter: w, at: 40 + at*7000}
		}
		if data, err := c.Range(t.Context(), node, m.head, 0, 3, 20, nil); err == nil {
			t.Errorf("taken: %d bytes", len(data))
		}
		if _, _, err := c.Tail(t.Context(), node, m.entry(0)); err == nil {
			t.Error("a tail was taken")
		}
		errs, err := c.Prove(t.Context(), node, []Audit{{m.head, 0}})
		if err == nil && errs[0] == nil {
			t.Error("a proof was taken")
		}
	}
	for _, cut := range []int{0, 1, 50, 5000, 100_000} {
		l.change = func(w http.ResponseWriter, _ *http.Request) http.ResponseWriter {
			return &cutting{ResponseWriter: w, left: cut}
		}
		if _, err := c.Range(t.Context(), node, m.head, 0, 3, 20, nil); !fault.Is(err, fault.Unavailable) {
			t.Errorf("cut after %d bytes: %v, want unavailable", cut, err)
		}
	}
	l.change = nil
	if _, err := c.Range(t.Context(), node, m.head, 0, 3, 20, nil); err != nil {
		t.Error(err)
	}
}

type flipping struct {
	http.ResponseWriter
	at int
}

func (f *flipping) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (f *flipping) Write(p []byte) (int, error) {
	if f.at >= 0 && f.at < len(p) {
		p = bytes.Clone(p)
		p[f.at] ^= 1
	}
	f.at -= len(p)
	return f.ResponseWriter.Write(p)
}

type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *cutting) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	c.ResponseWriter.Write(p[:n])
	if n < len(p) {
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// An audit tells who has the bytes from who has only his word.
func TestAnAuditNeedsTheBytes(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	m, gone, rotten := encode(t, 3, larger, 4<<20), encode(t, 4, small, 9_000), encode(t, 5, small, 4_000)
	for _, o := range []offered{m.offer(0), m.offer(5), gone.offer(0), rotten.offer(0)} {
		h.land(o)
	}
	if _, err := h.Drop(t.Context(), Purged{1}, gone.name(0)); err != nil {
		t.Fatal(err)
	}
	h = h.rot(rotten, 0, 0.5)
	defer h.close()
	c, _ := connect(t, h, HandlerOptions{})
	errs, err := c.Prove(t.Context(), h.self.ID(), []Audit{{m.head, 0}, {m.head, 5}, {gone.head, 0}, {rotten.head, 0}, {m.head, 0}})
	if err != nil {
		t.Fatal(err)
	}
	if errs[0] != nil || errs[1] != nil || errs[4] != nil || !fault.Is(errs[2], fault.NotFound) || !fault.Is(errs[3], fault.Corrupt) {
		t.Errorf("%v", errs)
	}
	if !slices.Equal(h.told(), []Name{rotten.name(0)}) {
		t.Errorf("told of %v", h.told())
	}
	// One that keeps heads and hashes, and no bytes.
	liar, _ := connect(t, h, HandlerOptions{Source: hollow{h.Store}})
	if errs, err := liar.Prove(t.Context(), h.self.ID(), []Audit{{m.head, 0}}); err != nil || !fault.Is(errs[0], fault.Corrupt) {
		t.Errorf("without bytes: %v, %v", errs, err)
	}
	if _, err := c.Prove(t.Context(), h.self.ID(), make([]Audit, MaxChallenges+1)); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

type hollow struct{ *Store }

func (o hollow) Shard(n Name) (Shard, error) {
	sh, err := o.Store.Shard(n)
	return hollowShard{sh}, err
}

type hollowShard struct{ Shard }

func (s hollowShard) Range(first, count int64) ([]byte, [][32]byte, error) {
	data, proof, err := s.Shard.Range(first, count)
	clear(data)
	return data, proof, err
}

// A list is in the order of packs' spread, of a part of it, page by page.
func TestAListGoesOnWhereItStopped(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	c, _ := connect(t, h, HandlerOptions{})
	var names []Name
	var all []offered
	for i := range 40 {
		m := encode(t, uint64(i), small, 600)
		all = append(all, m.offer(i%3), m.offer((i+1)%3))
		names = append(names, m.name(i%3), m.name((i+1)%3))
	}
	h.land(all...)
	slices.SortFunc(names, bySpread)
	if _, err := h.Drop(t.Context(), Purged{1}, names[7]); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(names[3:7], names[8:60])
	want = slices.DeleteFunc(want, func(n Name) bool { return spreadOf(n) < spreadOf(names[3]) || spreadOf(n) > spreadOf(names[59]) })
	var got []Name
	after := (*Name)(nil)
	lo, hi := spreadOf(names[3]), spreadOf(names[59])
	for {
		page, more, err := c.List(t.Context(), h.self.ID(), lo, hi, after)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range page[:min(len(page), 9)] { // as if a page were short
			got = append(got, st.Name)
			if st.State != Held || st.Root == [32]byte{} || st.Bytes == 0 {
				t.Errorf("listed %+v", st)
			}
		}
		if !more && len(page) <= 9 {
			break
		}
		after = &got[len(got)-1]
	}
	// names[2] or names[60] may be of the packs at the ends
	whole := slices.DeleteFunc(slices.Clone(names), func(n Name) bool { return n == names[7] || spreadOf(n) < lo || spreadOf(n) > hi })
	if !slices.Equal(got, whole) || len(whole) < len(want) {
		t.Errorf("listed %d of %d", len(got), len(whole))
	}
	if _, _, err := c.List(t.Context(), h.self.ID(), 5, 4, nil); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestAnAnswerIsCheckedAgainstTheQuestion(t *testing.T) {
	self, entries := fixed()
	receipt := signReceipt(self, entries)
	for name, test := range map[string]struct {
		l  Landed
		of []Entry
	}{
		"a receipt without outcomes":   {Landed{Outcomes: []Outcome{Missing, Missing}, Receipt: receipt}, entries},
		"no receipt for what is here":  {Landed{Outcomes: []Outcome{Known, Missing}}, entries},
		"a receipt for more":           {Landed{Outcomes: []Outcome{Known, Missing}, Receipt: receipt}, entries},
		"a receipt for less":           {Landed{Outcomes: []Outcome{Known, Known}, Receipt: signReceipt(self, entries[:1])}, entries},
		"a receipt for another":        {Landed{Outcomes: []Outcome{Known, Missing}, Receipt: signReceipt(self, entries[1:])}, entries},
		"an answer about fewer":        {Landed{Outcomes: []Outcome{Known}, Receipt: signReceipt(self, entries[:1])}, entries},
		"an outcome that is not known": {Landed{Outcomes: []Outcome{Missing, outcomes}}, entries},
		"an outcome of nothing":        {Landed{Outcomes: []Outcome{Missing, 0}}, entries},
	} {
		b, err := appendLanded(nil, &test.l)
		if err != nil {
			t.Fatal(err)
		}
		if l, err := parseLanded(b, test.of); err == nil {
			t.Errorf("%s: taken as %+v", name, l)
		}
	}
}

// pipeLink answers through a pipe, on virtual time.
type pipeLink struct {
	serve func(r *http.Request, answer *io.PipeWriter)
}

func (p pipeLink) RoundTrip(r *http.Request) (*http.Response, error) {
	body, answer := io.Pipe()
	go p.serve(r, answer)
	stop := context.AfterFunc(r.Context(), func() { body.CloseWithError(r.Context().Err()) })
	_ = stop
	return &http.Response{StatusCode: http.StatusOK, Body: body, Header: http.Header{}}, nil
}

// A peer that stalls is given up after its time, one that is slow is not.
func TestDeadlinesAreByProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := encode(t, 3, larger, 4<<20)
		sh, err := stripe.Open(bytes.NewReader(m.shards[0]), int64(len(m.shards[0])))
		if err != nil {
			t.Fatal(err)
		}
		data, proof, err := sh.Range(0, 40)
		if err != nil {
			t.Fatal(err)
		}
		answer := append(appendProof(nil, proof), data...)
		serve := func(stallAt int) pipeLink {
			return pipeLink{func(r *http.Request, w *io.PipeWriter) {
				for at := 0; at < len(answer); at += 10_000 {
					if at >= stallAt {
						<-r.Context().Done()
						w.CloseWithError(errors.New("gone"))
						return
					}
					time.Sleep(10 * time.Second)
					w.Write(answer[at:min(at+10_000, len(answer))])
				}
				w.Close()
			}}
		}
		began := time.Now()
		c := NewClient(call.NewClient(serve(1<<30)), nil)
		if got, err := c.Range(t.Context(), "node", m.head, 0, 0, 40, nil); err != nil || !bytes.Equal(got, data) {
			t.Errorf("slow: %v", err)
		}
		if took := time.Since(began); took < 10*time.Minute {
			t.Errorf("slow, in %v", took)
		}
		began = time.Now()
		c = NewClient(call.NewClient(serve(100_000)), nil)
		_, err = c.Range(t.Context(), "node", m.head, 0, 0, 40, nil)
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("stalled: %v", err)
		}
		if took := time.Since(began); took > 100*time.Second+stallAfter+time.Second {
			t.Errorf("stalled, given up after %v", took)
		}
	})
}

// An upload that stalls lets go of its names and its room.
func TestAStalledUploadLetsGo(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	handler := NewHandler(HandlerOptions{Held: h.Store, Source: h.Store,
		Peer: func(*http.Request) (authority.Name, error) { return authority.Name{Node: "asker"}, nil }})
	m := encode(t, 3, larger, 4<<20)
	body := io.MultiReader(bytes.NewReader(appendClaims(nil, []Claim{m.claim(0)})), bytes.NewReader(m.shards[0][:1<<20]), failing{})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, pathUpload, body))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if held, arriving := h.Bytes(); held != 0 || arriving != 0 || len(h.blobs()) != 0 {
		t.Errorf("%d held, %d arriving", held, arriving)
	}
	h.land(m.offer(0))
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("i/o timeout") }

func TestCallsThatAreNoneAreRefused(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	handler := NewHandler(HandlerOptions{Held: h.Store, Source: h.Store,
		Peer: func(*http.Request) (authority.Name, error) { return authority.Name{Node: "asker"}, nil }})
	m := encode(t, 3, small, 4_000)
	h.land(m.offer(0))
	good := pathOf(m.name(0), "leaves")
	for path, want := range map[string]int{
		"/held/nothing":              http.StatusNotImplemented,
		good:                         http.StatusBadRequest,
		good + "?first=0&count=0":    http.StatusBadRequest,
		good + "?first=-1&count=1":   http.StatusBadRequest,
		good + "?first=0&count=9999": http.StatusBadRequest,
		good + "?first=1&count=1":    http.StatusBadRequest,
		good + "?first=0&count=1":    http.StatusOK,
		"/held/shard/abc/1/0/head":   http.StatusBadRequest,
		"/held/shard/" + strings.Repeat("zz", 16) + "/1/0/head":  http.StatusBadRequest,
		"/held/shard/" + strings.Repeat("00", 16) + "/0/0/head":  http.StatusBadRequest,
		"/held/shard/" + strings.Repeat("00", 16) + "/1/16/head": http.StatusBadRequest,
		"/held/shard/" + strings.Repeat("00", 16) + "/1/0/head":  http.StatusNotFound,
		"/held/list":                      http.StatusBadRequest,
		"/held/list?from=0&to=1&after=00": http.StatusBadRequest,
		fmt.Sprintf("/held/list?from=0&to=%x", uint64(1<<63)): http.StatusOK,
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
	for _, path := range []string{pathUpload, pathReceipts, pathProofs} {
		for _, body := range []string{"", "garbage that is no list", uploadMagic + "\xff\xff\xff\xff", askMagic + "\xff\xff\xff\xff", proofsMagic + "\xff\xff\xff\xff"} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, strings.NewReader(body)))
			if w.Code/100 == 2 {
				t.Errorf("%s of %q: %d", path, body, w.Code)
			}
		}
	}
	refused := NewHandler(HandlerOptions{Held: h.Store, Source: h.Store})
	w := httptest.NewRecorder()
	refused.ServeHTTP(w, httptest.NewRequest(http.MethodGet, good, nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("a stranger: %d", w.Code)
	}
}
