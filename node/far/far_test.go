package far_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dimsetest"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// readInstance reads an instance of a manifest whole.
func readInstance(ctx context.Context, s *far.Series, m *far.Manifest, i int) ([]byte, error) {
	in := &m.Instances[i]
	var from io.ReaderAt
	if in.Pack < 0 {
		from = s.Staged(i).With(ctx)
	} else {
		from = pack.Instance(s.Pack(in.Pack).Plaintext(ctx), in.Entry())
	}
	b, err := io.ReadAll(io.NewSectionReader(from, 0, in.Record.Bytes))
	if err == nil && int64(len(b)) != in.Record.Bytes {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

// same checks that all instances of a manifest are those that were stored.
func same(t *testing.T, s *far.Series, m *far.Manifest, stored []dimsetest.Instance) {
	t.Helper()
	if len(m.Instances) != len(stored) {
		t.Fatalf("%d instances, want %d", len(m.Instances), len(stored))
	}
	want := map[string][]byte{}
	for _, i := range stored {
		want[i.SOPInstanceUID] = i.Dataset()
	}
	for i := range m.Instances {
		got, err := readInstance(t.Context(), s, m, i)
		if err != nil {
			t.Fatalf("instance %d: %v", i, err)
		}
		if !bytes.Equal(got, want[m.Instances[i].Record.Sop]) {
			t.Fatalf("instance %d comes other than it was stored", i)
		}
	}
}

func TestASeriesComesByteForByteFromPacksAndFromStaging(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 40)
	deflated := small(1, 40)
	deflated.Syntax = dimsetest.DeflatedExplicitLittleEndian
	origin.store(stored[:30]...)
	origin.pack()
	stored = append(stored, deflated)
	origin.store(stored[30:]...) // staged
	origin.store(series(2, 3)...)
	c := asker.client(nil)
	m, err := c.Series(t.Context(), origin.self.ID(), stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Packs) < 2 || m.Study != stored[0].StudyInstanceUID || m.Node != origin.self.ID() {
		t.Errorf("%d packs of study %s", len(m.Packs), m.Study)
	}
	if !slices.IsSortedFunc(m.Instances, func(a, b far.Instance) int { return strings.Compare(a.Record.Sop, b.Record.Sop) }) {
		t.Error("instances are not in the order of their UIDs")
	}
	for i := range m.Instances {
		h, err := dicom.ParseHeader(m.Instances[i].Header)
		if err != nil || h.Dataset.String(0x00080018) != m.Instances[i].Record.Sop {
			t.Errorf("instance %d has another header: %v", i, err)
		}
	}
	same(t, c.Read(m), m, stored)
	if n := origin.requestsFor("open"); n != 1 {
		t.Errorf("%d openings", n)
	}
	// The manifest by an instance is the same one.
	again, err := c.Find(t.Context(), origin.self.ID(), stored[5].SOPInstanceUID)
	if err != nil || len(again.Instances) != len(m.Instances) || again.Series != m.Series {
		t.Errorf("by an instance: %v", err)
	}
	// What was packed since still reads by the old manifest.
	origin.pack()
	same(t, asker.client(nil).Read(m), m, stored)
}

func TestEachByteIsSentOnceHoweverManyRead(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 60)
	origin.store(stored...)
	origin.pack()
	c := asker.client(nil)
	m, err := c.Series(t.Context(), origin.self.ID(), stored[0].StudyInstanceUID, stored[0].SeriesInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, p := range m.Packs {
		total += p.Bytes
	}
	var readers sync.WaitGroup
	for r := range 8 {
		s := c.Read(m)
		readers.Go(func() {
			for k := range m.Instances {
				i := (k + r*7) % len(m.Instances)
				b, err := readInstance(t.Context(), s, m, i)
				if err != nil || blake3.Sum256(b) != [32]byte(m.Instances[i].Record.Hash) {
					t.Errorf("reader %d, instance %d: %v", r, i, err)
					return
				}
			}
		})
	}
	readers.Wait()
	if sent := origin.sentOf("pack"); sent > total || sent < total*9/10 {
		t.Errorf("%d bytes sent of packs of %d", sent, total)
	}
}

func TestOneRoundTripGivesManifestAndFirstFrame(t *testing.T) {
	for _, packed := range []bool{true, false} {
		t.Run(fmt.Sprintf("packed=%v", packed), func(t *testing.T) {
			net := newNetwork()
			origin, asker := net.node(t, "A"), net.node(t, "B")
			stored := series(1, 30)
			origin.store(stored...)
			if packed {
				origin.pack()
			}
			c := asker.client(nil)
			wanted := stored[17]
			o, err := c.Open(t.Context(), origin.self.ID(), far.Want{
				Study: wanted.StudyInstanceUID, Series: wanted.SeriesInstanceUID, SOP: wanted.SOPInstanceUID, Frame: 1,
			})
			if err != nil {
				t.Fatal(err)
			}
			first := o.First()
			if len(first.Instances) != 1 || first.Instances[0].Record.Sop != wanted.SOPInstanceUID {
				t.Fatal("another instance came first")
			}
			h, err := dicom.ParseHeader(first.Instances[0].Header)
			if err != nil {
				t.Fatal(err)
			}
			frames, err := h.Frames()
			if err != nil {
				t.Fatal(err)
			}
			s := c.Read(first)
			var src io.ReaderAt
			if packed {
				src = pack.Instance(s.Pack(0).Plaintext(t.Context()), first.Instances[0].Entry())
			} else {
				src = s.Staged(0).With(t.Context())
			}
			got, err := frames.ReadFrame(nil, src, 1)
			if err != nil {
				t.Fatal(err)
			}
			data := wanted.Dataset()
			if !bytes.Equal(got, data[frames.Offset:frames.Offset+frames.Length]) {
				t.Error("the frame is another")
			}
			if n := origin.requestsFor("pack") + origin.requestsFor("staged"); n != 0 {
				t.Errorf("%d more round trips for the frame", n)
			}
			m, err := o.Manifest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			same(t, c.Read(m), m, stored)
		})
	}
}

// rotten is a shelf whose packs cannot be read.
type rotten struct{ *shelf }

func (r rotten) Ciphertext(id pack.ID) (*archivepb.Pack, io.ReaderAt, error) {
	p, _, err := r.shelf.Ciphertext(id)
	return p, spoilt{}, err
}

type spoilt struct{}

func (spoilt) ReadAt([]byte, int64) (int, error) { return 0, fault.New(fault.Corrupt, "rotten") }

// Bytes that cannot be read are no reason to leave out what is known of a series.
func TestASeriesIsToldOfWhoseBytesAreRotten(t *testing.T) {
	s := newShelf(t, 3, 64, 1<<20)
	net := newNetwork()
	origin, asker := net.plain(t, "A", rotten{s}), net.plain(t, "B", nil)
	r := s.holdings[1].Record
	for name, want := range map[string]far.Want{
		"of an instance": {SOP: r.Sop, Bytes: 1000}, "of the series": {Study: r.Study, Series: r.Series, Bytes: 1 << 20},
	} {
		c := asker.client(nil)
		o, err := c.Open(t.Context(), origin.self.ID(), want)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		m, err := o.Manifest(t.Context())
		if err != nil || len(m.Instances) != len(s.holdings) || o.Came() {
			t.Errorf("%s: %+v, bytes came: %v, %v", name, m, o.Came(), err)
			continue
		}
		if _, err := readInstance(t.Context(), c.Read(m), m, 1); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
}

func TestWhatIsDeletedIsInNoManifest(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 10)
	origin.store(stored...)
	c := asker.client(nil)
	one := stored[3]
	before, err := c.Find(t.Context(), origin.self.ID(), one.SOPInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	if err := origin.Delete(t.Context(), one.StudyInstanceUID, one.SeriesInstanceUID, one.SOPInstanceUID, "test"); err != nil {
		t.Fatal(err)
	}
	m, err := c.Series(t.Context(), origin.self.ID(), one.StudyInstanceUID, one.SeriesInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, c.Read(m), m, slices.Delete(slices.Clone(stored), 3, 4))
	if _, err := c.Find(t.Context(), origin.self.ID(), one.SOPInstanceUID); !fault.Is(err, fault.NotFound) {
		t.Errorf("by the deleted instance: %v", err)
	}
	i := slices.IndexFunc(before.Instances, func(in far.Instance) bool { return in.Record.Sop == one.SOPInstanceUID })
	if _, err := readInstance(t.Context(), asker.client(nil).Read(before), before, i); !fault.Is(err, fault.NotFound) {
		t.Errorf("the deleted instance by an old manifest: %v", err)
	}
	if err := origin.Delete(t.Context(), one.StudyInstanceUID, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Series(t.Context(), origin.self.ID(), one.StudyInstanceUID, one.SeriesInstanceUID); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted study: %v", err)
	}
}

func TestWhoIsNoMemberGetsNoKey(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 5)
	origin.store(stored...)
	origin.pack()
	c := asker.client(nil)
	m, err := c.Find(t.Context(), origin.self.ID(), stored[0].SOPInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	origin.waitAudited(1)
	net.mu.Lock()
	asker.barred = true
	net.mu.Unlock()
	if _, err := c.Find(t.Context(), origin.self.ID(), stored[0].SOPInstanceUID); !fault.Is(err, fault.Denied) {
		t.Errorf("one without a sealing key: %v", err)
	}
	net.mu.Lock()
	delete(net.nodes, asker.self.ID())
	net.mu.Unlock()
	if _, err := c.Read(m).Pack(0).ReadAt(t.Context(), make([]byte, 1), 0); !fault.Is(err, fault.Denied) {
		t.Errorf("a stranger who reads a pack: %v", err)
	}
	origin.waitAudited(2)
	origin.mu.Lock()
	defer origin.mu.Unlock()
	if n := len(origin.accesses); n != 2 || origin.accesses[0].Err != nil || origin.accesses[0].Instances != 5 ||
		origin.accesses[0].Study != stored[0].StudyInstanceUID || origin.accesses[0].Peer.Site != "B" || origin.accesses[1].Err == nil {
		t.Errorf("audited: %+v", origin.accesses)
	}
}

// kept keeps packs in memory.
type kept struct {
	came  chan struct{} // after each
	mu    sync.Mutex
	packs map[pack.ID][]byte
	err   error
	calls int
}

func (k *kept) Keep(_ context.Context, p far.Pack, ciphertext io.ReaderAt) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	defer func() { k.came <- struct{}{} }()
	if k.err != nil {
		return k.err
	}
	b, err := io.ReadAll(io.NewSectionReader(ciphertext, 0, p.Bytes))
	if k.packs == nil {
		k.packs = map[pack.ID][]byte{}
	}
	k.packs[p.ID] = b
	return err
}

func TestWhatWasReadWholeIsKept(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 60)
	origin.store(stored...)
	origin.pack()
	k := kept{came: make(chan struct{}, 100)}
	c := asker.client(func(o *far.Options) { o.Keep = &k })
	m, err := c.Find(t.Context(), origin.self.ID(), stored[0].SOPInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	same(t, c.Read(m), m, stored)
	for range m.Packs {
		select {
		case <-k.came:
		case <-time.After(time.Minute):
			t.Fatal("not all packs are kept")
		}
	}
	for _, p := range m.Packs {
		_, bytesOf, err := origin.Ciphertext(p.ID)
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(io.NewSectionReader(bytesOf, 0, p.Bytes))
		if err != nil || !bytes.Equal(k.packs[p.ID], want) {
			t.Errorf("pack %x of %d bytes: %d bytes kept, %v", p.ID, p.Bytes, len(k.packs[p.ID]), err)
		}
	}
	if k.calls != len(m.Packs) {
		t.Errorf("%d calls for %d packs", k.calls, len(m.Packs))
	}
}

func TestFailuresOfPeersHaveTheirKinds(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 3)
	origin.store(stored...)
	c := asker.client(nil)
	for _, test := range []struct {
		name string
		do   func() error
		kind fault.Kind
	}{
		{"unknown series", func() error { _, err := c.Series(t.Context(), origin.self.ID(), "1.2", "1.3"); return err }, fault.NotFound},
		{"unknown instance", func() error { _, err := c.Find(t.Context(), origin.self.ID(), "1.3"); return err }, fault.NotFound},
		{"nothing", func() error { _, err := c.Find(t.Context(), origin.self.ID(), ""); return err }, fault.Invalid},
		{"unknown node", func() error { _, err := c.Find(t.Context(), "nobody", "1.3"); return err }, fault.Unavailable},
		{"given up", func() error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_, err := c.Find(ctx, origin.self.ID(), "1.3")
			return err
		}, fault.Canceled},
	} {
		if err := test.do(); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v, want %v", test.name, err, test.kind)
		}
	}
}

func TestRangesAreWholeUnits(t *testing.T) {
	net := newNetwork()
	origin, asker := net.node(t, "A"), net.node(t, "B")
	stored := series(1, 5)
	origin.store(stored...)
	origin.pack()
	m, err := asker.client(nil).Find(t.Context(), origin.self.ID(), stored[0].SOPInstanceUID)
	if err != nil {
		t.Fatal(err)
	}
	p := m.Packs[0]
	for _, test := range []struct {
		path, ranged string
		status       int
	}{
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=0-16399", http.StatusPartialContent},
		{fmt.Sprintf("/archive/pack/%x", p.ID), fmt.Sprintf("bytes=16400-%d", p.Bytes-1), http.StatusPartialContent},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=0-16398", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=1-16399", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=16400-16399", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), fmt.Sprintf("bytes=0-%d", p.Bytes), http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=-16400", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=0-16399,16400-32799", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "bytes=0-9223372036854775807", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x", p.ID), "", http.StatusBadRequest},
		{fmt.Sprintf("/archive/pack/%x00", p.ID), "bytes=0-16399", http.StatusBadRequest},
		{"/archive/pack/xyz", "bytes=0-16399", http.StatusBadRequest},
		{"/archive/pack/00000000000000000000000000000000", "bytes=0-16399", http.StatusNotFound},
		{"/archive/staged/1?sop=1.2", "bytes=0-16383", http.StatusNotFound},
		{"/archive/staged/1?sop=" + stored[0].SOPInstanceUID, "bytes=0-16383", http.StatusPartialContent},
		{"/archive/staged/x?sop=1.2", "bytes=0-16383", http.StatusBadRequest},
		{"/archive/else", "", http.StatusNotImplemented},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+origin.self.ID()+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Range", test.ranged)
		answer, err := wire{asker}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, answer.Body)
		if answer.StatusCode != test.status || err != nil {
			t.Errorf("%s %q: %d with %d bytes, %v", test.path, test.ranged, answer.StatusCode, n, err)
		}
		answer.Body.Close()
	}
}

// streamed takes long packs as they come, and nothing else.
type streamed struct {
	done chan error
	p    far.Pack
	sum  [32]byte
}

func (k *streamed) Keep(_ context.Context, p far.Pack, ciphertext io.ReaderAt) error {
	h := blake3.New()
	_, err := io.Copy(h, io.NewSectionReader(ciphertext, 0, p.Bytes))
	k.p, k.sum = p, [32]byte(h.Sum(nil))
	k.done <- err
	return err
}

func TestAPackTooLongForMemoryIsKeptWhileItIsRead(t *testing.T) {
	s := newShelf(t, 1, 6900, 1<<30) // 95 MB in one instance
	net := newNetwork()
	origin, asker := net.plain(t, "A", s), net.plain(t, "B", nil)
	k := &streamed{done: make(chan error, 1)}
	c := asker.client(func(o *far.Options) { o.Keep, o.Memory = k, 128<<20 })
	m, err := c.Find(t.Context(), origin.self.ID(), s.holdings[0].Record.Sop)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Packs) != 1 || m.Packs[0].Bytes <= far.InMemory {
		t.Fatalf("%d packs, the first of %d bytes", len(m.Packs), m.Packs[0].Bytes)
	}
	series := c.Read(m)
	for i := range m.Instances {
		if _, err := readInstance(t.Context(), series, m, i); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-k.done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it is not kept")
	}
	if k.sum != blake3.Sum256(s.sealed[k.p.ID]) {
		t.Error("other bytes were kept than the pack's")
	}
	// Without a link its reader may be far ahead of it.
	if sent := origin.sentOf("pack"); sent > k.p.Bytes*2 {
		t.Errorf("%d bytes were sent of a pack of %d", sent, k.p.Bytes)
	}
	if got := c.Resident(); got > far.InMemory {
		t.Errorf("%d bytes are in memory", got)
	}
	// A client that keeps nothing, and one that has no room for it.
	var full full
	for _, keep := range []far.Keeper{nil, &full} {
		c := asker.client(func(o *far.Options) { o.Keep = keep })
		r := c.Read(m).Pack(0)
		if _, err := io.Copy(io.Discard, io.NewSectionReader(r.With(t.Context()), 0, r.Size())); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if n := full.asked.Load(); n != 1 {
		t.Errorf("who has no room for it was asked to keep it %d times", n)
	}
}

// full has no room.
type full struct{ asked atomic.Int64 }

func (f *full) Keep(context.Context, far.Pack, io.ReaderAt) error {
	f.asked.Add(1)
	return fault.New(fault.Full, "no room")
}

// What a node says of a pack's length costs no memory before its bytes come.
func TestNothingIsAllocatedByAClaimedLength(t *testing.T) {
	net := newNetwork()
	asker := net.plain(t, "A", nil)
	c := asker.client(func(o *far.Options) { o.Keep = &streamed{} })
	const plain = 1 << 50
	s := c.Read(&far.Manifest{Node: "gone", Study: "1", Series: "1.1", Packs: []far.Pack{{Bytes: seal.Size(plain), Plaintext: plain}}})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.Pack(0).ReadAt(t.Context(), make([]byte, 1), plain/2)
	runtime.ReadMemStats(&after)
	if !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated for a pack of which nothing came", n)
	}
}
