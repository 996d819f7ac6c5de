package held

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/shard"
)

var (
	small  = shard.Code{K: 1, M: 2}
	larger = shard.Code{K: 3, M: 3}
)

func TestWhatLandedIsThereAfterARestart(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	a, b := encode(t, 1, small, 30_000), encode(t, 2, larger, 3<<20)
	first := h.land(a.offer(0))
	h.land(b.offer(4))
	for range 2 {
		h.check(a, 0)
		h.check(b, 4)
		h.checkGone(a.name(1))
		if again := h.land(a.offer(0)); again.Outcomes[0] == Stored && again.Receipt == nil || again.Receipt.Signature != first.Receipt.Signature {
			t.Errorf("the same shard has another receipt: %v", again.Outcomes)
		}
		if n := len(h.blobs()); n != 2 {
			t.Errorf("%d blobs of two shards", n)
		}
		h = h.reopen()
	}
	h.close()
}

// A batch of a request has one table and one receipt; what was here is not taken
// again.
func TestABatchIsOneCommit(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	var all []offered
	var stripes []*made
	for i := range 60 {
		stripes = append(stripes, encode(t, uint64(100+i), small, int64(1000+i*700)))
		all = append(all, stripes[i].offer(1))
	}
	h.land(all[5:9]...)
	l := h.land(all...)
	stored := 0
	for _, o := range l.Outcomes {
		if o == Stored {
			stored++
		}
	}
	if stored != 56 || h.stats.Commits.Load() != 2 || h.stats.Tables.Load() != 2 || len(h.blobs()) != 60 {
		t.Errorf("%d stored in %d commits and %d tables, %d blobs", stored, h.stats.Commits.Load(), h.stats.Tables.Load(), len(h.blobs()))
	}
	for _, m := range stripes {
		h.check(m, 1)
	}
}

// What cannot be a shard, or is not the one that was claimed, is refused, and
// nothing of its upload is taken.
func TestHostileUploadsLeaveNothing(t *testing.T) {
	a, b, c := encode(t, 1, small, 90_000), encode(t, 2, small, 80_000), encode(t, 3, larger, 4<<20)
	claims, body := batch(a.offer(0), b.offer(0))
	flipped := bytes.Clone(body)
	flipped[len(body)-len(body)/3] ^= 1
	other := c.claim(1)
	other.Index = 2
	lied := a.claim(0)
	lied.Root[3] ^= 1
	longer, shorter := a.claim(0), a.claim(0)
	longer.Bytes++
	shorter.Bytes--
	twice := []Claim{a.claim(0), a.claim(0)}
	down := []Claim{claims[1], claims[0]}
	none := a.claim(0)
	none.Generation = 0
	for name, test := range map[string]struct {
		claims []Claim
		body   io.Reader
		want   fault.Kind
	}{
		"garbage":          {[]Claim{a.claim(0)}, strings.NewReader(strings.Repeat("x", 200_000)), fault.Invalid},
		"garbage, large":   {[]Claim{c.claim(0)}, strings.NewReader(strings.Repeat("x", 4<<20)), fault.Invalid},
		"empty":            {[]Claim{a.claim(0)}, strings.NewReader(""), fault.Unavailable},
		"truncated":        {claims, bytes.NewReader(body[:len(body)-1]), fault.Unavailable},
		"truncated, large": {[]Claim{c.claim(0)}, bytes.NewReader(c.shards[0][:2<<20/3]), fault.Unavailable},
		"endless":          {claims, io.MultiReader(bytes.NewReader(body), endless{}), fault.Invalid},
		"a flipped bit":    {claims, bytes.NewReader(flipped), fault.Invalid},
		"wrong index":      {[]Claim{other}, bytes.NewReader(c.shards[1]), fault.Invalid},
		"wrong root":       {[]Claim{lied}, bytes.NewReader(a.shards[0]), fault.Invalid},
		"another stripe":   {[]Claim{{a.entry(0), int64(len(b.shards[0]))}}, bytes.NewReader(b.shards[0]), fault.Invalid},
		"claimed longer":   {[]Claim{longer}, bytes.NewReader(append(bytes.Clone(a.shards[0]), 0)), fault.Invalid},
		"claimed shorter":  {[]Claim{shorter}, bytes.NewReader(a.shards[0]), fault.Invalid},
		"twice":            {twice, bytes.NewReader(body), fault.Invalid},
		"descending":       {down, bytes.NewReader(body), fault.Invalid},
		"no generation":    {[]Claim{none}, bytes.NewReader(body), fault.Invalid},
		"none":             {nil, bytes.NewReader(body), fault.Invalid},
		"large in a batch": {[]Claim{a.claim(0), {b.entry(0), MaxSmall + 1}}, bytes.NewReader(body), fault.Invalid},
		"too long":         {[]Claim{{a.entry(0), MaxBytes + 1}}, bytes.NewReader(body), fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, vfs.NewMem(), nil)
			defer h.close()
			if l, err := h.Land(t.Context(), test.claims, test.body); !fault.Is(err, test.want) {
				t.Errorf("%v, %v, want %v", l, err, test.want)
			}
			if held, arriving := h.Bytes(); len(h.blobs()) != 0 || len(h.listed()) != 0 || held != 0 || arriving != 0 {
				t.Errorf("left %v, %v, %d bytes held, %d arriving", h.blobs(), h.listed(), held, arriving)
			}
			if names, _ := h.fs.List("data/bulk/ingest"); len(names) > 0 {
				t.Errorf("left files %v", names)
			}
			h.land(a.offer(0), b.offer(0)) // nobody has taken the names
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Another stripe root under a name that is taken is refused and told of; what is
// held stays.
func TestAnotherRootUnderANameIsAConflict(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	a, b := encode(t, 1, small, 20_000), encode(t, 2, small, 20_000)
	h.land(a.offer(0))
	fake := b.claim(0)
	fake.Stripe = a.head.Stripe
	l, err := h.Land(t.Context(), []Claim{fake}, bytes.NewReader(b.shards[0]))
	if err != nil || l.Outcomes[0] != Conflict || l.Receipt != nil {
		t.Errorf("%v, %v", l, err)
	}
	if len(h.conflicts) != 1 || h.conflicts[0] != fake.Entry {
		t.Errorf("told of %v", h.conflicts)
	}
	if l, err := h.Ask([]Entry{fake.Entry}); err != nil || l.Outcomes[0] != Conflict || l.Receipt != nil {
		t.Errorf("asked: %v, %v", l, err)
	}
	h.check(a, 0)
}

// One that is on its way is not taken beside itself.
func TestAShardArrivesOnce(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	m := encode(t, 1, larger, 4<<20)
	from, in := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := h.Land(t.Context(), []Claim{m.claim(0)}, from)
		done <- err
	}()
	in.Write(m.shards[0][:1<<20])
	l, err := h.Land(t.Context(), []Claim{m.claim(0)}, bytes.NewReader(m.shards[0]))
	if err != nil || l.Outcomes[0] != Busy || l.Receipt != nil {
		t.Errorf("%v, %v", l, err)
	}
	in.Write(m.shards[0][1<<20:])
	in.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	h.check(m, 0)
	if l := h.land(m.offer(0)); l.Outcomes[0] != Known {
		t.Errorf("afterwards %v", l.Outcomes)
	}
}

// Uploads that come at once share commits.
func TestUploadsShareCommits(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	const senders, each = 16, 6
	stripes := make([]*made, senders*each)
	for i := range stripes {
		size, code := int64(2000+i*900), small
		if i%5 == 0 {
			size, code = 2<<20, larger
		}
		stripes[i] = encode(t, uint64(500+i), code, size)
	}
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for i := range each {
				m := stripes[s*each+i]
				claims, body := batch(m.offer(i % 3))
				l, err := h.Land(t.Context(), claims, bytes.NewReader(body))
				if err != nil || l.Outcomes[0] != Stored {
					t.Errorf("%v: %v, %v", claims[0].Name, l, err)
					return
				}
				if err := l.Receipt.Verify(h.self.Public()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d uploads in %d commits of %d tables", senders*each, h.stats.Commits.Load(), h.stats.Tables.Load())
	for range 2 {
		for i, m := range stripes {
			h.check(m, i%each%3)
		}
		if held, arriving := h.Bytes(); arriving != 0 || held == 0 {
			t.Errorf("%d held, %d arriving", held, arriving)
		}
		h = h.reopen()
	}
	h.close()
}

// Room is asked for before the first byte is read.
func TestWithoutRoomNothingIsRead(t *testing.T) {
	m := encode(t, 1, larger, 2<<20)
	for name, change := range map[string]func(*Options){
		"pledge": func(o *Options) { o.Limit = func() int64 { return int64(len(m.shards[0])) - 1 } },
		"disk":   func(o *Options) { o.Reserve = func(int64) error { return fault.New(fault.Full, "full") } },
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, vfs.NewMem(), change)
			defer h.close()
			if _, err := h.Land(t.Context(), []Claim{m.claim(0)}, untouched{t}); !fault.Is(err, fault.Full) {
				t.Errorf("%v, want full", err)
			}
			if held, arriving := h.Bytes(); held != 0 || arriving != 0 {
				t.Errorf("%d held, %d arriving", held, arriving)
			}
		})
	}
}

type untouched struct{ t *testing.T }

func (u untouched) Read([]byte) (int, error) {
	u.t.Error("read before there was room")
	return 0, io.EOF
}

// A disk that fills up meanwhile refuses what comes; what is held stays, and after
// it was freed all goes on.
func TestAFullDiskRefusesAndGoesOn(t *testing.T) {
	full := false
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full && op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, "bulk/ingest") {
			return syscall.ENOSPC
		}
		return nil
	}))
	h := open(t, fs, nil)
	a, b, c := encode(t, 1, small, 50_000), encode(t, 2, small, 60_000), encode(t, 3, larger, 5<<20)
	h.land(a.offer(0))
	full = true
	for _, o := range []offered{b.offer(0), c.offer(2)} {
		if _, err := h.Land(t.Context(), []Claim{o.Claim}, bytes.NewReader(o.bytes)); !fault.Is(err, fault.Full) {
			t.Errorf("%v, want full", err)
		}
	}
	full = false
	h.check(a, 0)
	h.land(b.offer(0))
	h.land(c.offer(2))
	h = h.reopen()
	h.check(a, 0)
	h.check(b, 0)
	h.check(c, 2)
	if n := len(h.blobs()); n != 3 {
		t.Errorf("%d blobs", n)
	}
	h.close()
}

// Rows that cannot be written leave no shard that nobody knows.
func TestWithoutRowsNothingIsHeld(t *testing.T) {
	rows := newMemRows()
	h := open(t, vfs.NewMem(), func(o *Options) { o.Rows = rows })
	defer h.close()
	m := encode(t, 1, small, 20_000)
	rows.fail = errors.New("no rows")
	if _, err := h.Land(t.Context(), []Claim{m.claim(0)}, bytes.NewReader(m.shards[0])); err == nil {
		t.Error("landed")
	}
	if len(h.blobs()) != 0 || len(h.writing.floors) != 0 {
		t.Errorf("left %v, %d tables being written", h.blobs(), len(h.writing.floors))
	}
	h.land(m.offer(0))
	h.check(m, 0)
}

// The mark never passes a table whose blobs have no rows yet.
func TestTheMarkStaysBelowTablesThatAreBeingWritten(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	slow, fast := encode(t, 1, larger, 3<<20), encode(t, 2, small, 1000)
	from, in := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := h.Land(t.Context(), []Claim{slow.claim(1)}, from)
		done <- err
	}()
	in.Write(slow.shards[1][:100])
	h.land(fast.offer(0))
	before, err := h.mark()
	if err != nil {
		t.Fatal(err)
	}
	in.Write(slow.shards[1][100:])
	in.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	after, _ := h.mark()
	r, err := h.row(slow.name(1))
	if err != nil || before > r.ref.Table || after <= r.ref.Table {
		t.Errorf("mark %d, then %d, of table %d: %v", before, after, r.ref.Table, err)
	}
}

func BenchmarkLandSmall(b *testing.B) { benchmarkLand(b, small, 100_000, 100) }
func BenchmarkLandOne(b *testing.B)   { benchmarkLand(b, small, 100_000, 1) }
func BenchmarkLandLarge(b *testing.B) { benchmarkLand(b, larger, 48<<20, 1) }

// Uploads of a shard each that come at once.
func BenchmarkLandAtOnce(b *testing.B) {
	counted := &syncs{}
	h := open(b, errorfs.Wrap(inFolder(b), counted), nil)
	defer h.close()
	const senders = 32
	all := make([]offered, b.N)
	for i := range all {
		all[i] = encode(b, uint64(i), small, 30_000).offer(0)
	}
	counted.n.Store(0)
	b.ReportAllocs()
	b.ResetTimer()
	var work sync.WaitGroup
	for s := range senders {
		work.Go(func() {
			for i := s; i < len(all); i += senders {
				if _, err := h.Land(b.Context(), []Claim{all[i].Claim}, bytes.NewReader(all[i].bytes)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	work.Wait()
	b.ReportMetric(float64(counted.n.Load())/float64(b.N), "syncs/shard")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "shards/s")
	b.ReportMetric(float64(h.stats.Commits.Load())/float64(b.N), "commits/shard")
}

func benchmarkLand(b *testing.B, c shard.Code, plaintext int64, each int) {
	counted := &syncs{}
	h := open(b, errorfs.Wrap(inFolder(b), counted), nil)
	defer h.close()
	var round uint64
	var bytesLanded int64
	b.ReportAllocs()
	counted.n.Store(0)
	shards := 0
	for b.Loop() {
		b.StopTimer()
		var all []offered
		for i := range each {
			round++
			all = append(all, encode(b, round, c, plaintext+int64(i)).offer(0))
		}
		claims, body := batch(all...)
		b.StartTimer()
		if _, err := h.Land(b.Context(), claims, bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
		shards += each
		bytesLanded += int64(len(body))
	}
	b.ReportMetric(float64(counted.n.Load())/float64(shards), "syncs/shard")
	b.ReportMetric(float64(shards)/b.Elapsed().Seconds(), "shards/s")
	b.ReportMetric(float64(bytesLanded)/1e6/b.Elapsed().Seconds(), "MB/s")
}

// A number that was given to a table which was then dropped may be given again after
// a restart: the mark does not pass it.
func TestTheMarkDoesNotPassNumbersThatMayComeAgain(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	a, b := encode(t, 1, larger, 3<<20), encode(t, 2, larger, 3<<20)
	from, in := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := h.Land(t.Context(), []Claim{a.claim(1)}, from)
		done <- err
	}()
	in.Write(a.shards[1][:100])
	if _, err := h.Land(t.Context(), []Claim{b.claim(1)}, strings.NewReader("")); err == nil {
		t.Fatal("landed")
	}
	in.Write(a.shards[1][100:])
	in.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mark, err := h.mark()
	if err != nil {
		t.Fatal(err)
	}
	h = h.reopen()
	h.land(b.offer(1))
	if r, err := h.row(b.name(1)); err != nil || r.ref.Table < mark {
		t.Errorf("table %d after a mark of %d: %v", r.ref.Table, mark, err)
	}
	h.close()
}
