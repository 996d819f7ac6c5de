package archive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

func TestWhatIsStoredComesBackByteForByteFromStagingAndFromPacks(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(fs, keys))
	images := []image{}
	for n := range 20 {
		images = append(images, serial(n))
	}
	big := serial(100)
	big.side = 700 // several chunks
	images = append(images, big)
	for i, syntax := range []string{dict.ImplicitLittleEndian, dict.ExplicitBigEndian, dict.DeflatedExplicitLittleEndian} {
		m := serial(200 + i)
		m.syntax = syntax
		images = append(images, m)
	}
	for _, m := range images {
		if s := b.store(m); s.Outcome != New {
			t.Errorf("%s: outcome %d", m.sop, s.Outcome)
		}
		b.same(m)
	}
	if r := b.sound(); r.Instances != uint64(len(images)) || r.Packs != 0 {
		t.Errorf("verified %d instances in %d packs", r.Instances, r.Packs)
	}
	b.pack()
	if total, live := b.staging.Bytes(); live != 0 {
		t.Errorf("staging still holds %d live of %d bytes", live, total)
	}
	for _, m := range images {
		b.same(m)
	}
	if r := b.sound(); r.Packs == 0 {
		t.Error("nothing was packed")
	}
	b.close()
	b = open(t, testOptions(fs, keys))
	defer b.close()
	for _, m := range images {
		b.same(m)
	}
	b.sound()
}

// What is packed makes room, however small staging is.
func TestFullStagingTakesMoreOncePacked(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	o.StagingBytes, o.Patience = 1<<20, -1
	b := open(t, o)
	defer b.close()
	n, times := 0, 0
	for ; times < 3; n++ {
		m := serial(n)
		m.side = 120
		_, err := b.Store(context.Background(), m.incoming(m.encode(t)))
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.Full) {
			t.Fatalf("instance %d: %v", n, err)
		}
		times++
		b.pack()
		if _, err := b.Store(context.Background(), m.incoming(m.encode(t))); err != nil {
			t.Fatalf("instance %d after packing: %v", n, err)
		}
	}
	if n < 3*20 {
		t.Errorf("full after %d instances", n)
	}
	b.sound()
}

// Who still has what a table has lost can send it again: the answer "here
// already" would make him delete his copy.
func TestLostInstanceIsTakenAgain(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(fs, keys))
	var images []image
	for n := range 8 {
		images = append(images, serial(n))
		b.store(images[n])
	}
	b.pack()
	before := b.sound()
	b.close()
	b = open(t, testOptions(fs, keys)) // lets the segment go that was being written
	b.close()
	removeTables(t, fs)
	b = open(t, testOptions(fs, keys))
	for _, m := range images {
		if _, err := b.read(m); !fault.Is(err, fault.Corrupt) {
			t.Fatalf("%s: %v, want it lost", m.sop, err)
		}
	}
	if b.Counters().PacksLost.Load() == 0 {
		t.Error("nobody who watches the counters learns of the loss")
	}
	for _, m := range images {
		if s := b.store(m); s.Outcome != New {
			t.Errorf("%s: outcome %d", m.sop, s.Outcome)
		}
		b.same(m)
		if s := b.store(m); s.Outcome != Same {
			t.Errorf("%s once more: outcome %d", m.sop, s.Outcome)
		}
	}
	b.close()
	b = open(t, testOptions(fs, keys))
	for _, m := range images {
		b.same(m)
	}
	b.pack()
	for _, m := range images {
		b.same(m)
	}
	if after := b.sound(); after.Instances != before.Instances || after.Packs != before.Packs {
		t.Errorf("verified %d instances in %d packs, before the loss %d in %d", after.Instances, after.Packs, before.Instances, before.Packs)
	}
	b.close()
}

// Senders are slowed, not refused, while the packer keeps up.
func TestCrowdedStagingHoldsArrivals(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	o.StagingBytes, o.Patience = 1<<20, time.Hour
	b := open(t, o)
	defer b.close()
	for n := range 200 { // 29 KB each: several times what staging holds
		m := serial(n)
		m.side = 120
		if _, err := b.Store(t.Context(), m.incoming(m.encode(t))); err != nil {
			t.Fatalf("instance %d: %v", n, err)
		}
	}
	if b.Counters().Held.Load() == 0 {
		t.Error("nothing had to wait: the test proves nothing")
	}
	b.sound()
}

// Waiting for a packer that fails would only be slow.
func TestNobodyWaitsForAStuckPacker(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	o.StagingBytes, o.Patience = 1<<20, time.Hour
	b := open(t, o)
	defer b.close()
	b.still.Lock() // no table is made
	b.stuck.Store(true)
	defer b.still.Unlock()
	for n := 0; ; n++ {
		m := serial(n)
		m.side = 120
		_, err := b.Store(t.Context(), m.incoming(m.encode(t)))
		if fault.Is(err, fault.Full) {
			return
		}
		if err != nil {
			t.Fatalf("instance %d: %v", n, err)
		}
	}
}

func TestRefusalsStoreNothing(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	good := serial(1)
	data := good.encode(t)
	lost := errors.New("connection reset")
	for _, test := range []struct {
		name string
		in   Incoming
		kind fault.Kind
	}{
		{"other instance", Incoming{Syntax: dict.ExplicitLittleEndian, Instance: "9.9", Body: bytes.NewReader(data)}, fault.Mismatch},
		{"other class", Incoming{Syntax: dict.ExplicitLittleEndian, Class: "9.9", Body: bytes.NewReader(data)}, fault.Mismatch},
		{"other study", Incoming{Syntax: dict.ExplicitLittleEndian, Study: "9.9", Body: bytes.NewReader(data)}, fault.Mismatch},
		{"cut short", Incoming{Syntax: dict.ExplicitLittleEndian, Body: bytes.NewReader(data[:len(data)-1])}, fault.Invalid},
		{"not DICOM", Incoming{Syntax: dict.ExplicitLittleEndian, Body: strings.NewReader("\xff\xd8 a picture of the cat, with no data set at all")}, fault.Invalid},
		{"no syntax", Incoming{Body: bytes.NewReader(data)}, fault.Invalid},
		{"JPIP", Incoming{Syntax: "1.2.840.10008.1.2.4.94", Body: bytes.NewReader(data)}, fault.Unsupported},
		{"no study", image{sop: "1.1", patient: "x"}.incoming(image{sop: "1.1", patient: "x"}.encode(t)), fault.Mismatch},
		{"long UID", image{study: strings.Repeat("1", 65), series: "1", sop: "1.2"}.incoming(image{study: strings.Repeat("1", 65), series: "1", sop: "1.2"}.encode(t)), fault.Mismatch},
		{"lost sender", Incoming{Syntax: dict.ExplicitLittleEndian, Body: io.MultiReader(bytes.NewReader(data[:300]), failing{lost})}, fault.Other},
	} {
		_, err := b.Store(context.Background(), test.in)
		if err == nil || fault.KindOf(err) != test.kind {
			t.Errorf("%s: %v", test.name, err)
		}
		if test.kind == fault.Other && !errors.Is(err, lost) {
			t.Errorf("%s: the cause is lost in %v", test.name, err)
		}
	}
	if r := b.sound(); r.Instances != 0 {
		t.Errorf("%d instances stored", r.Instances)
	}
	b.store(good)
	b.same(good)
}

func TestAClosedArchiveTakesNothingInAndServesOn(t *testing.T) {
	var shut atomic.Bool
	o := testOptions(vfs.NewMem(), newRing())
	o.Takes = func() error {
		if shut.Load() {
			return fault.New(fault.Unavailable, "%w", &Closed{Why: "for a reason"})
		}
		return nil
	}
	b := open(t, o)
	defer b.close()
	before, after := serial(1), serial(2)
	b.store(before)
	shut.Store(true)
	for _, m := range []image{before, after} { // what is here already, too
		_, err := b.Store(t.Context(), Incoming{Syntax: dict.ExplicitLittleEndian, Body: failing{errors.New("it was read")}})
		if closed := new(Closed); !fault.Is(err, fault.Unavailable) || !errors.As(err, &closed) || closed.Why != "for a reason" {
			t.Errorf("%s: %v", m.sop, err)
		}
	}
	b.same(before)
	shut.Store(false)
	b.store(after)
	b.same(after)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestDuplicates(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(fs, keys))
	first := serial(1)
	other := first
	other.seed = 77
	implicit := first
	implicit.syntax = dict.ImplicitLittleEndian
	b.store(first)
	if s := b.store(first); s.Outcome != Same {
		t.Errorf("the same bytes: outcome %d", s.Outcome)
	}
	if s := b.store(implicit); s.Outcome != Same {
		t.Errorf("the same in implicit little endian: outcome %d", s.Outcome)
	}
	s := b.store(other)
	if s.Outcome != Quarantined || s.Deleted {
		t.Errorf("other content: %+v", s)
	}
	if again := b.store(other); again.Outcome != Quarantined || again.Number != s.Number {
		t.Errorf("other content again: %+v", again)
	}
	b.same(first)
	reviews, err := b.Reviews(0, 10)
	if err != nil || len(reviews) != 1 || reviews[0].Against == nil {
		t.Fatalf("reviews: %+v, %v", reviews, err)
	}
	d, err := b.Compare(context.Background(), s.Number)
	if err != nil || !d.Pixels || len(d.Attributes) != 0 {
		t.Errorf("compare: %+v, %v", d, err)
	}
	b.pack()
	b.close()
	b = open(t, testOptions(fs, keys))
	defer b.close()
	if err := b.Decide(context.Background(), s.Number, Accept); err != nil {
		t.Fatal(err)
	}
	b.same(other)
	if reviews, err = b.Reviews(0, 10); err != nil || len(reviews) != 1 || reviews[0].Number == s.Number {
		t.Errorf("after accepting: %+v, %v", reviews, err)
	}
	if err := b.Decide(context.Background(), reviews[0].Number, Discard); err != nil {
		t.Fatal(err)
	}
	if reviews, err = b.Reviews(0, 10); err != nil || len(reviews) != 0 {
		t.Errorf("after discarding: %+v, %v", reviews, err)
	}
	b.sound()
}

func TestAConflictIsShownAgainstWhatIsCanonicalNow(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	first := serial(1)
	second, third := first, first
	second.seed, third.seed = 77, 78
	b.store(first)
	accepted, waiting := b.store(second), b.store(third)
	if err := b.Decide(ctx, accepted.Number, Accept); err != nil {
		t.Fatal(err)
	}
	reviews, err := b.Reviews(0, 10)
	if err != nil || len(reviews) != 2 {
		t.Fatalf("reviews: %+v, %v", reviews, err)
	}
	for _, r := range reviews {
		if r.Against == nil || r.Against.Number != accepted.Number {
			t.Errorf("%d is listed against %+v, not against the canonical %d", r.Number, r.Against, accepted.Number)
		}
	}
	d, err := b.Compare(ctx, waiting.Number)
	if err != nil || d.Canonical.Number != accepted.Number || d.Quarantined.Number != waiting.Number {
		t.Errorf("compared: %+v, %v", d, err)
	}
}

func TestEqualArrivalsAtOnceBecomeOneInstance(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	m := serial(3)
	data := m.encode(t)
	var wg sync.WaitGroup
	outcomes := make([]Outcome, 16)
	for i := range outcomes {
		wg.Go(func() {
			s, err := b.Store(context.Background(), m.incoming(data))
			if err != nil {
				t.Error(err)
			}
			outcomes[i] = s.Outcome
		})
	}
	wg.Wait()
	fresh := 0
	for _, o := range outcomes {
		if o == New {
			fresh++
		} else if o != Same {
			t.Errorf("outcome %d", o)
		}
	}
	if fresh != 1 {
		t.Errorf("%d of %d equal arrivals are new", fresh, len(outcomes))
	}
	if r := b.sound(); r.Instances != 1 {
		t.Errorf("%d instances", r.Instances)
	}
}

func TestDeletedObjectsAreGoneRestorableAndLateArrivalsQuarantined(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 8 {
		b.store(serial(n))
	}
	one, late := serial(2), serial(3)
	late.seed = 99
	if err := b.Delete(ctx, one.study, one.series, one.sop, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.read(one); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted instance: %v", err)
	}
	b.same(serial(1))
	if s, err := b.Catalog().Study(one.study); err != nil || s.Instances != 7 {
		t.Errorf("after deleting one: %+v, %v", s, err)
	}
	if err := b.Delete(ctx, one.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Catalog().Study(one.study); !fault.Is(err, fault.NotFound) {
		t.Errorf("a deleted study: %v", err)
	}
	if s := b.store(late); s.Outcome != Quarantined || !s.Deleted {
		t.Errorf("a late arrival: %+v", s)
	}
	if err := b.Committed(ctx, ctClass, late.sop, "MODALITY"); !fault.Is(err, fault.Conflict) {
		t.Errorf("commitment of a late arrival: %v", err)
	}
	if err := b.Restore(ctx, one.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	b.same(serial(1))
	if s, err := b.Catalog().Study(one.study); err != nil || s.Instances != 7 {
		t.Errorf("after restoring the study: %+v, %v", s, err)
	}
	if err := b.Restore(ctx, one.study, one.series, one.sop, "test"); err != nil {
		t.Fatal(err)
	}
	b.same(one)
	b.sound()
}

// A clock that jumps must not end the grace of everything that was deleted.
func TestAClockThatJumpsIsDoubtedForADay(t *testing.T) {
	fs, keys := vfs.NewMem(), newRing()
	reopen := func() *Archive { // its tasks do not run: they look at the real clock
		a, err := openAlone(testOptions(fs, keys))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := reopen()
	var doubted time.Time
	begin := time.Now()
	for _, step := range []struct {
		name  string
		after time.Duration
		sure  bool
	}{
		{"the first look", 0, true},
		{"an hour on", time.Hour, true},
		{"a night on", 15 * time.Hour, true},
		{"a year on", 365 * 24 * time.Hour, false},
		{"the same, an hour later", 365*24*time.Hour + time.Hour, false},
		{"set right", 17 * time.Hour, true},
		{"a year on again", 365 * 24 * time.Hour, false},
		{"still so 23 hours later", 365*24*time.Hour + 23*time.Hour, false},
		{"so for a day", 365*24*time.Hour + 24*time.Hour, true},
		{"an hour after", 365*24*time.Hour + 25*time.Hour, true},
		{"set back", 24 * time.Hour, true},
	} {
		sure, err := a.trustClock(begin.Add(step.after), &doubted)
		if err != nil || sure != step.sure {
			t.Errorf("%s: %t, %v, want %t", step.name, sure, err, step.sure)
		}
	}
	if err := closeAlone(a); err != nil {
		t.Fatal(err)
	}
	a = reopen()
	defer closeAlone(a)
	doubted = time.Time{}
	if sure, err := a.trustClock(begin.Add(20*24*time.Hour), &doubted); err != nil || sure {
		t.Errorf("switched off for weeks: %t, %v", sure, err)
	}
}

func TestPurgeFreesOnlyWhatIsPastTheGrace(t *testing.T) {
	ctx := context.Background()
	keys := newRing()
	b := open(t, testOptions(vfs.NewMem(), keys))
	defer b.close()
	for n := range 16 {
		b.store(serial(n))
	}
	b.pack()
	gone := serial(0)
	if err := b.Delete(ctx, gone.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.purge(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := b.Restore(ctx, gone.study, "", "", "test"); err != nil {
		t.Fatalf("within the grace: %v", err)
	}
	b.same(gone)
	if err := b.Delete(ctx, gone.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	before := b.bulk.Bytes()
	if err := b.purge(ctx, time.Now().Add(b.o.Grace+time.Hour)); err != nil {
		t.Fatal(err)
	}
	if packs, err := b.Packs(ctx, gone.study); err != nil || len(packs) != 0 {
		t.Errorf("packs of a purged study: %+v, %v", packs, err)
	}
	if _, ok := keys.of[gone.study]; ok {
		t.Error("the key of a purged study is still there")
	}
	if before == 0 {
		t.Error("nothing was at rest")
	}
	if s := b.store(gone); s.Outcome != Quarantined || !s.Deleted {
		t.Errorf("a purged instance that comes again: %+v", s)
	}
	for n := 8; n < 16; n++ {
		b.same(serial(n))
	}
	b.sound()
}

func TestCommittedReadsBack(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	m := serial(5)
	if err := b.Committed(ctx, ctClass, m.sop, "MODALITY"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown: %v", err)
	}
	b.store(m)
	if err := b.Committed(ctx, ctClass, m.sop, "MODALITY"); err != nil {
		t.Errorf("stored: %v", err)
	}
	if err := b.Committed(ctx, "1.2.3", m.sop, "MODALITY"); !fault.Is(err, fault.Mismatch) {
		t.Errorf("other class: %v", err)
	}
	other := m
	other.seed = 1234
	b.store(other)
	if err := b.Committed(ctx, ctClass, m.sop, "MODALITY"); !fault.Is(err, fault.Conflict) {
		t.Errorf("the sender's last version is quarantined: %v", err)
	}
	if err := b.Committed(ctx, ctClass, m.sop, "SOMEBODY"); err != nil {
		t.Errorf("for somebody else: %v", err)
	}
}

func TestFullDiskRefusesAndServes(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	free := int64(1 << 40)
	var mu sync.Mutex
	o.Free = func() (int64, int64, error) {
		mu.Lock()
		defer mu.Unlock()
		return free, 1 << 40, nil
	}
	b := open(t, o)
	defer b.close()
	m := serial(1)
	b.store(m)
	mu.Lock()
	free = 0
	mu.Unlock()
	b.space.mu.Lock()
	b.space.asked = time.Time{}
	b.space.mu.Unlock()
	// What is reserved already may still be used; then the end must come.
	var refused image
	for n := 2; refused.sop == "" && n < 12; n++ {
		large := serial(n)
		large.side = 2000
		_, err := b.Store(context.Background(), large.incoming(large.encode(t)))
		if err == nil {
			continue
		}
		refused = large
		if !fault.Is(err, fault.Full) {
			t.Errorf("with a full disk: %v", err)
		}
	}
	if refused.sop == "" {
		t.Fatal("a full disk refused nothing")
	}
	b.same(m)
	if _, err := b.read(refused); !fault.Is(err, fault.NotFound) {
		t.Errorf("the refused instance: %v", err)
	}
	mu.Lock()
	free = 1 << 40
	mu.Unlock()
	b.space.mu.Lock()
	b.space.asked = time.Time{}
	b.space.mu.Unlock()
	b.store(refused)
	b.same(refused)
	b.sound()
}

// What can do without leaves more than the ballast free, and takes nothing of that from
// others.
func TestRoomIsKeptFromCopiesAlone(t *testing.T) {
	o := testOptions(vfs.NewMem(), newRing())
	const ballast, kept, free = 10 << 20, 30 << 20, 100 << 20
	o.Ballast = ballast
	o.Free = func() (int64, int64, error) { return free, 1 << 40, nil }
	b := open(t, o)
	defer b.close()
	again := func() {
		b.space.mu.Lock()
		defer b.space.mu.Unlock()
		b.space.asked = time.Time{}
	}
	again()
	if err := b.ReserveBeside(free-ballast-kept+1, kept); !fault.Is(err, fault.Full) {
		t.Errorf("a byte too many beside what is kept: %v", err)
	}
	if err := b.ReserveBeside(free-ballast-kept, kept); err != nil {
		t.Errorf("as much as there is beside what is kept: %v", err)
	}
	if err := b.Reserve(kept); err != nil {
		t.Errorf("what was kept is not there: %v", err)
	}
	if err := b.Reserve(1); !fault.Is(err, fault.Full) {
		t.Errorf("of the ballast: %v", err)
	}
	for more, want := range map[int64]bool{0: false, free - 2*ballast: false, free - 2*ballast + 1: true} {
		if got := b.Pressed(more); got != want {
			t.Errorf("with %d kept: %t", more, got)
		}
	}
}

func TestNonPatientObjectsRestInTheirReservedSeries(t *testing.T) {
	const hangingProtocol = "1.2.840.10008.5.1.4.38.1"
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	m := image{sop: "1.2.3.4", class: hangingProtocol}
	s := b.store(m)
	if s.Study != ReservedStudy || s.Series != reservedSeries(hangingProtocol) || len(s.Series) > maxUID {
		t.Errorf("stored under %s %s", s.Study, s.Series)
	}
	b.same(m)
	if n := b.Catalog().Totals().Studies; n != 0 {
		t.Errorf("%d studies are counted", n)
	}
}
