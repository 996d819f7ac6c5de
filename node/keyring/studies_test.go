package keyring

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/replication/catalog"
	"pelago/shard/keys"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// agreed is a catalogue's study keys.
type agreed struct {
	mu         sync.Mutex
	all        []catalog.StudyKey
	generation uint64
	changed    chan struct{}
	asked      []uint64 // after which index
	fail       error    // in the middle
}

func newAgreed() *agreed { return &agreed{generation: 1, changed: make(chan struct{})} }

func (a *agreed) StudyKeys(_ context.Context, after uint64) iter.Seq2[catalog.StudyKey, error] {
	a.mu.Lock()
	all, fail := append([]catalog.StudyKey(nil), a.all...), a.fail
	a.asked = append(a.asked, after)
	a.mu.Unlock()
	return func(yield func(catalog.StudyKey, error) bool) {
		for i, k := range all {
			if fail != nil && i == len(all)/2 {
				yield(catalog.StudyKey{}, fail)
				return
			}
			if k.At > after && !yield(k, nil) {
				return
			}
		}
	}
}

func (a *agreed) Generation() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.generation
}

// last is the place of the last key.
func (a *agreed) last() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return uint64(len(a.all))
}

func (a *agreed) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// add commits an entry that brings so many keys.
func (a *agreed) add(count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range count {
		n := len(a.all)
		k := catalog.StudyKey{At: uint64(n + 1), Study: fmt.Sprint("1.2.", n), Origin: fmt.Sprint("node", n%3), Epoch: 1}
		k.ID[0], k.ID[1], k.ID[2], k.Wrapped[0] = byte(n), byte(n>>8), byte(a.generation), byte(n)
		a.all = append(a.all, k)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// noEpochs is what wraps nothing: keys are kept all the same.
type noEpochs struct{}

func (noEpochs) Epoch(uint32) (key [32]byte, err error) {
	return key, fault.New(fault.NotFound, "none")
}
func (noEpochs) Current() uint32 { return 0 }

func openRing(t testing.TB, fs vfs.FS) *keys.Ring {
	t.Helper()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := keys.Open(fs, "keys", noEpochs{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func openStudies(t testing.TB, fs vfs.FS, from *agreed, ring Ring, log io.Writer) *Studies {
	t.Helper()
	s, err := OpenStudies(StudiesOptions{FS: fs, Dir: "keys", Ring: ring, From: from, Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// holds reports how many of the keys that were agreed on a ring has.
func holds(t testing.TB, r *keys.Ring, all []catalog.StudyKey) (held int) {
	t.Helper()
	for _, k := range all {
		got, err := r.Wrapped(k.ID)
		if err == nil && got == (keys.StudyKey{ID: k.ID, Study: k.Study, Origin: k.Origin, Epoch: k.Epoch, Wrapped: k.Wrapped}) {
			held++
		}
	}
	return held
}

func TestStudyKeysAreKeptAsTheyAreAgreedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs, from := vfs.NewMem(), newAgreed()
		ring := openRing(t, fs)
		from.add(3)
		s := openStudies(t, fs, from, ring, io.Discard)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		for range 50 {
			from.add(rand.IntN(4))
			time.Sleep(10 * time.Millisecond)
		}
		from.add(2*maxKept + 7) // more than fit into a batch
		from.add(0)
		time.Sleep(time.Second)
		if s.At() != from.last() || holds(t, ring, from.all) != len(from.all) {
			t.Errorf("at %d of %d, %d of %d keys", s.At(), from.last(), holds(t, ring, from.all), len(from.all))
		}
		if asked := len(from.asked); asked > 12 {
			t.Errorf("it was read %d times in half a second", asked)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		from.asked = nil
		again := openStudies(t, fs, from, ring, io.Discard)
		if err := again.catchUp(t.Context()); err != nil || again.At() != from.last() || from.asked[0] != from.last() {
			t.Errorf("after a clean end: at %d, read after %v, %v", again.At(), from.asked, err)
		}
		if err := ring.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestOfAnotherCatalogueKeysAreLookedAtFromTheBeginning(t *testing.T) {
	fs, from := vfs.NewMem(), newAgreed()
	ring := openRing(t, fs)
	defer ring.Close()
	for range 5 {
		from.add(2)
	}
	s := openStudies(t, fs, from, ring, io.Discard)
	if err := errors.Join(s.catchUp(t.Context()), s.note(0)); err != nil {
		t.Fatal(err)
	}
	was := from.all
	for name, change := range map[string]func(a *agreed){
		"a copy was put in place":       func(*agreed) { s.Replaced() },
		"another generation":            func(a *agreed) { a.generation = 2; s = openStudies(t, fs, a, ring, io.Discard) },
		"how far it was is lost":        func(a *agreed) { remove(t, fs); s = openStudies(t, fs, a, ring, io.Discard) },
		"how far it was cannot be read": func(a *agreed) { write(t, fs, []byte("rot")); s = openStudies(t, fs, a, ring, io.Discard) },
		"how far it was is of another size": func(a *agreed) {
			write(t, fs, identity.Frame(cursorMagic, nil))
			s = openStudies(t, fs, a, ring, io.Discard)
		},
	} {
		other := newAgreed()
		for range 5 {
			other.add(1)
		}
		for i := range other.all {
			other.all[i].ID[3] = byte(len(name)) // other keys
		}
		change(other)
		if s.At() != 0 {
			t.Errorf("%s: at %d", name, s.At())
		}
		s.o.From = other
		if err := s.catchUp(t.Context()); err != nil || holds(t, ring, other.all) != 5 || s.At() != 5 {
			t.Errorf("%s: %d of 5 keys, at %d, %v", name, holds(t, ring, other.all), s.At(), err)
		}
		if err := s.note(0); err != nil {
			t.Fatal(err)
		}
	}
	if holds(t, ring, was) != len(was) {
		t.Error("keys that the other catalogues lack are gone")
	}
	write(t, fs, identity.Frame("PelFoll\x02", make([]byte, cursorBytes)))
	if _, err := OpenStudies(s.o); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a newer program's: %v", err)
	}
}

func remove(t *testing.T, fs vfs.FS) {
	if err := fs.Remove("keys/" + cursorFile); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, fs vfs.FS, b []byte) {
	if err := identity.WriteFile(fs, "keys", cursorFile, b); err != nil {
		t.Fatal(err)
	}
}

// interrupted has its catalogue replaced while a batch is kept.
type interrupted struct {
	Ring
	once func()
}

func (i *interrupted) Keep(all ...keys.StudyKey) (int, error) {
	i.once()
	return i.Ring.Keep(all...)
}

func TestAReplacementInTheMiddleIsNotOvertaken(t *testing.T) {
	fs, from := vfs.NewMem(), newAgreed()
	ring := openRing(t, fs)
	defer ring.Close()
	from.add(3)
	between := &interrupted{Ring: ring}
	s := openStudies(t, fs, from, between, io.Discard)
	between.once = sync.OnceFunc(s.Replaced)
	if err := s.catchUp(t.Context()); err != nil || s.At() != 0 {
		t.Errorf("at %d, %v", s.At(), err)
	}
	if err := s.catchUp(t.Context()); err != nil || s.At() != from.last() {
		t.Errorf("then at %d, %v", s.At(), err)
	}
}

func TestWhatCannotBeReadOrKeptIsNotPassedBy(t *testing.T) {
	fs, from := vfs.NewMem(), newAgreed()
	ring := openRing(t, fs)
	defer ring.Close()
	var log bytes.Buffer
	s := openStudies(t, fs, from, ring, &log)
	from.add(1)
	from.add(1)
	from.fail = fault.New(fault.Corrupt, "a rotten block")
	if err := s.catchUp(t.Context()); !fault.Is(err, fault.Corrupt) || s.At() != 0 {
		t.Errorf("a catalogue that cannot be read: at %d, %v", s.At(), err)
	}
	from.fail = nil
	from.all[0].At, from.all[1].At = 2, 1
	if err := s.catchUp(t.Context()); !fault.Is(err, fault.Corrupt) || s.At() != 0 {
		t.Errorf("out of order: at %d, %v", s.At(), err)
	}
	from.all[0].At, from.all[1].At = 1, 2
	poison := from.all[0]
	poison.Origin, poison.At = "mallory", 3
	from.all = append(from.all, poison)
	from.add(1)
	if err := s.catchUp(t.Context()); err != nil || s.At() != from.last() || holds(t, ring, from.all) != 3 {
		t.Errorf("a key under another's id: at %d, %d of 3 keys, %v", s.At(), holds(t, ring, from.all), err)
	}
	if !bytes.Contains(log.Bytes(), []byte("cannot be kept")) {
		t.Error("nobody learns of it")
	}
}

// However far it says that it is after a crash, all keys up to there are in the ring,
// and the rest comes.
func TestACrashWhileFollowingPassesNoKeyBy(t *testing.T) {
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("keys", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		var said uint64
		count, from := 0, newAgreed()
		var s *Studies
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if count++; count == at {
					crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50 * (at % 3), RNG: rand.New(rand.NewPCG(uint64(at), 2))})
					if s != nil && s.mu.TryLock() {
						said = s.at.place
						s.mu.Unlock()
					}
				}
			}
			return nil
		}))
		ring := openRing(t, fs)
		s = openStudies(t, fs, from, ring, io.Discard)
		for range 4 {
			from.add(2)
			if err := errors.Join(s.catchUp(t.Context()), s.note(0)); err != nil {
				t.Fatal(err)
			}
		}
		ring.Close()
		if crashed == nil {
			if at < 20 {
				t.Fatalf("following took %d writes: the test proves nothing", at)
			}
			return
		}
		again := openRing(t, crashed)
		after := openStudies(t, crashed, from, again, io.Discard)
		for _, k := range from.all {
			if _, err := again.Wrapped(k.ID); err != nil && k.At <= max(said, after.At()) {
				t.Errorf("crash at %d: key of entry %d is missing, it said %d, and says %d", at, k.At, said, after.At())
			}
		}
		if err := after.catchUp(t.Context()); err != nil || holds(t, again, from.all) != len(from.all) {
			t.Errorf("crash at %d: it goes on to %d of %d keys, %v", at, holds(t, again, from.all), len(from.all), err)
		}
		again.Close()
	}
}

func TestGoldenCursor(t *testing.T) {
	name := filepath.Join("testdata", cursorFile)
	want := cursor{generation: 3, place: 0x0102030405060708}
	fs := vfs.NewMem()
	ring := openRing(t, fs)
	defer ring.Close()
	if *rewrite {
		s := openStudies(t, fs, newAgreed(), ring, io.Discard)
		s.at = want
		if err := s.note(0); err != nil {
			t.Fatal(err)
		}
		f, err := fs.Open("keys/" + cursorFile)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(f)
		if err := errors.Join(err, f.Close(), os.MkdirAll("testdata", 0o755), os.WriteFile(name, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, fs, b)
	from := newAgreed()
	from.generation = want.generation
	if s := openStudies(t, fs, from, ring, io.Discard); s.at != want || len(b) != 56 {
		t.Errorf("%+v of %d bytes", s.at, len(b))
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(identity.Frame(cursorMagic, make([]byte, cursorBytes)))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		ring := openRing(t, fs)
		defer ring.Close()
		write(t, fs, b)
		from := newAgreed()
		from.add(1)
		s, err := OpenStudies(StudiesOptions{FS: fs, Dir: "keys", Ring: ring, From: from, Log: slog.New(slog.DiscardHandler)})
		if err == nil && s.At() != 0 && !bytes.Equal(b, identity.Frame(cursorMagic, b[8:8+cursorBytes])) {
			t.Fatalf("at %d, by what nobody wrote", s.At())
		}
	})
}
