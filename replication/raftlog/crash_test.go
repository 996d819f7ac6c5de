package raftlog_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication/raftlog"
)

// syncs is a file system that calls before and after every sync.
func syncs(fs vfs.FS, before func()) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
			before()
		}
		return nil
	}))
}

// history is what a log was told: acknowledged, and handed over meanwhile.
type history struct {
	acked, tried     map[uint64]uint64 // index → term
	vote, tryingVote [2]uint64         // term, candidate
}

func (h *history) clone() *history {
	c := &history{map[uint64]uint64{}, map[uint64]uint64{}, h.vote, h.tryingVote}
	for i, t := range h.acked {
		c.acked[i] = t
	}
	for i, t := range h.tried {
		c.tried[i] = t
	}
	return c
}

// check fails unless the log, opened after a crash, is one that the history allows.
func (h *history) check(t *testing.T, fs vfs.FS) {
	t.Helper()
	s := open(t, fs)
	defer s.Close()
	if s.Older() {
		t.Fatal("what a crash left passes for an older log")
	}
	first, last := s.Bounds()
	got := map[uint64]uint64{}
	for i := first; i <= last && last > 0; i++ {
		var l raft.Log
		if err := s.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if string(l.Data) != string(entry(i, l.Term).Data) {
			t.Fatalf("entry %d: %q", i, l.Data)
		}
		got[i] = l.Term
	}
	// A commit is whole or absent: the log is the one before it or the one after.
	if !same(got, h.acked) && !same(got, h.tried) {
		t.Fatalf("log %v, acknowledged %v, handed over %v", got, h.acked, h.tried)
	}
	term, err := s.GetUint64([]byte("LastVoteTerm"))
	candidate, err2 := s.Get([]byte("LastVoteCand"))
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	is := func(v [2]uint64) bool {
		return term == v[0] && (v[0] == 0 && candidate == nil || string(candidate) == strconv.FormatUint(v[1], 10))
	}
	if !is(h.vote) && !is(h.tryingVote) {
		t.Fatalf("vote %d %q, given %v, giving %v", term, candidate, h.vote, h.tryingVote)
	}
}

func same(a, b map[uint64]uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i, t := range a {
		if b[i] != t {
			return false
		}
	}
	return true
}

func crashSeeds(t testing.TB) uint64 {
	if s := os.Getenv("PELAGO_CRASH_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if testing.Short() {
		return 1
	}
	return 3
}

func TestCrashAtEverySyncKeepsWhatWasAcknowledged(t *testing.T) {
	for seed := range crashSeeds(t) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			mem := vfs.NewCrashableMem()
			h := &history{acked: map[uint64]uint64{}, tried: map[uint64]uint64{}}
			type crash struct {
				fs vfs.FS
				h  *history
			}
			var crashes []crash
			cut := func() {
				for _, percent := range []int{0, 50, 100} {
					clone := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: random})
					crashes = append(crashes, crash{clone, h.clone()})
				}
			}
			armed := false
			s := open(t, syncs(mem, func() {
				if armed { // Pebble's own background syncs are those of Close
					cut()
				}
			}))
			armed = true
			workload(t, s, h, random, cut)
			armed = false
			s.Close()
			if len(crashes) < 300 {
				t.Fatalf("%d crash points", len(crashes))
			}
			for _, c := range crashes {
				c.h.check(t, c.fs)
			}
		})
	}
}

// workload appends, truncates and votes at random; after is called when an
// operation has been acknowledged.
func workload(t *testing.T, s *raftlog.Store, h *history, random *rand.Rand, after func()) {
	term := uint64(1)
	for range 60 {
		first, last := s.Bounds()
		var err error
		switch random.IntN(6) {
		case 0, 1, 2:
			logs := entries(last+1, last+1+random.Uint64N(5), term)
			for _, l := range logs {
				h.tried[l.Index] = l.Term
			}
			err = s.StoreLogs(logs)
		case 3:
			if last == 0 {
				continue
			}
			low, high := first, first+random.Uint64N(last-first+1)
			if random.IntN(2) == 0 {
				low, high = high, last
				term++
			}
			for i := low; i <= high; i++ {
				delete(h.tried, i)
			}
			err = s.DeleteRange(low, high)
		default:
			term++
			h.tryingVote = [2]uint64{term, random.Uint64N(5)}
			err = errors.Join(s.SetUint64([]byte("LastVoteTerm"), term),
				s.Set([]byte("LastVoteCand"), strconv.AppendUint(nil, h.tryingVote[1], 10)))
		}
		if random.IntN(4) == 0 {
			err = errors.Join(err, s.Mark())
		}
		if err != nil {
			t.Fatal(err)
		}
		h.acked, h.vote = h.clone().tried, h.tryingVote
		after()
	}
}

// walOf returns the name of the newest write-ahead log.
func walOf(t *testing.T, fs vfs.FS) string {
	t.Helper()
	names, err := fs.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	newest := ""
	for _, n := range names {
		if strings.HasSuffix(n, ".log") && n > newest {
			newest = n
		}
	}
	if newest == "" {
		t.Fatal("no write-ahead log among", names)
	}
	return fs.PathJoin(dir, newest)
}

func contents(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

func rewrite(t *testing.T, fs vfs.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestATornTailIsCut(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := open(t, mem)
	for i := uint64(1); i <= 20; i++ {
		store(t, s, entries(i, i, 1))
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	s.Close()
	wal := walOf(t, crashed)
	whole := contents(t, crashed, wal)
	lasts := map[uint64]bool{}
	for n := len(whole); n >= 0; n -= 7 {
		fs := vfs.NewMem()
		if _, err := vfs.Clone(crashed, fs, dir, dir); err != nil {
			t.Fatal(err)
		}
		rewrite(t, fs, wal, whole[:n])
		s := open(t, fs)
		_, last := s.Bounds()
		expect(t, s, entries(1, last, 1))
		// What is left goes on.
		store(t, s, entries(last+1, last+2, 2))
		s.Close()
		lasts[last] = true
	}
	if len(lasts) != 21 {
		t.Fatalf("the cuts left %d lengths of 21", len(lasts))
	}
}

// Pebble tells rot from a torn tail by what was synced in a later block of
// its log, of 32 KiB: see docs/decisions/0024.
func TestRotBeforeTheTailIsNotATornTail(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := open(t, mem)
	const n = 40
	for i := uint64(1); i <= n; i++ {
		store(t, s, []*raft.Log{{Index: i, Term: 1, Data: make([]byte, 5<<10)}})
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	s.Close()
	wal := walOf(t, crashed)
	whole := contents(t, crashed, wal)
	for at := 30; at < len(whole)-64<<10; at += 1013 {
		fs := vfs.NewMem()
		if _, err := vfs.Clone(crashed, fs, dir, dir); err != nil {
			t.Fatal(err)
		}
		rotten := append([]byte(nil), whole...)
		rotten[at] ^= 0x10
		rewrite(t, fs, wal, rotten)
		s, err := raftlog.Open(raftlog.Options{FS: fs, Dir: dir})
		if err == nil {
			_, last := s.Bounds()
			s.Close()
			if last == n {
				continue // padding between blocks
			}
			t.Fatalf("byte %d of %d rotten: opened, with entries up to %d of %d", at, len(whole), last, n)
		}
		if !fault.Is(err, fault.Corrupt) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}

func TestARottenTableIsReportedByRangeAndMended(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem)
	const n = 3000
	for i := uint64(1); i <= n; i += 100 {
		store(t, s, entries(i, i+99, 1))
	}
	if err := errors.Join(s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	tables, err := mem.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range tables {
		if strings.HasSuffix(name, ".sst") {
			path := filepath.Join(dir, name)
			b := contents(t, mem, path)
			b[len(b)/3] ^= 1
			rewrite(t, mem, path, b)
		}
	}
	s = opened(t, mem)
	bad, err := s.Check(context.Background(), 1)
	if err != nil || len(bad) != 1 || bad[0].First <= 1 || bad[0].Last >= n || !fault.Is(bad[0], fault.Corrupt) {
		t.Fatalf("%v, %v", bad, err)
	}
	var l raft.Log
	var c *raftlog.CorruptError
	if err := s.GetLog(bad[0].First, &l); !errors.As(err, &c) || c.First != bad[0].First {
		t.Fatal(err)
	}
	if first, last := s.Bounds(); first != 1 || last != n {
		t.Fatal("rot moved the bounds", first, last)
	}
	if err := s.Replace(entries(bad[0].First, bad[0].Last, 1)); err != nil {
		t.Fatal(err)
	}
	expect(t, s, entries(1, n, 1))
	if bad, err := s.Check(context.Background(), 1); err != nil || bad != nil {
		t.Fatal(bad, err)
	}
}

func TestBadRowsAreRangesAndOnlyTheSameLogMendsThem(t *testing.T) {
	s := opened(t, vfs.NewMem())
	store(t, s, entries(1, 5, 1))
	store(t, s, entries(6, 12, 3))
	for _, i := range []uint64{4, 5, 9} {
		row, err := s.Row(raftlog.LogKey(i))
		if err != nil {
			t.Fatal(err)
		}
		row[len(row)/2] ^= 0x40
		if err := s.SetRow(raftlog.LogKey(i), row); err != nil {
			t.Fatal(err)
		}
	}
	// A whole row that stands under another index is corrupt too.
	row, _ := s.Row(raftlog.LogKey(1))
	if err := s.SetRow(raftlog.LogKey(11), row); err != nil {
		t.Fatal(err)
	}
	ranges := func(from uint64) (got string) {
		bad, err := s.Check(context.Background(), from)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bad {
			got += fmt.Sprintf(" %d-%d", b.First, b.Last)
		}
		return got
	}
	if got := ranges(0); got != " 4-5 9-9 11-11" {
		t.Fatal(got)
	}
	if got := ranges(6); got != " 9-9 11-11" {
		t.Fatal(got)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Check(ctx, 0); !fault.Is(err, fault.Canceled) {
		t.Fatal(err)
	}
	for name, logs := range map[string][]*raft.Log{
		"term before its neighbour":  entries(9, 9, 2),
		"term behind its neighbour":  entries(4, 5, 4),
		"outside":                    entries(12, 13, 3),
		"a gap":                      {entry(9, 3), entry(11, 3)},
		"terms that fall":            {entry(4, 2), entry(5, 1)},
		"an index that is cut off":   entries(0, 0, 1),
		"an entry longer than bound": {{Index: 9, Term: 3, Data: make([]byte, raftlog.MaxEntryBytes+1)}},
	} {
		if err := s.Replace(logs); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(s.Replace(nil), s.Replace(entries(4, 5, 1)), s.Replace(entries(9, 9, 3)), s.Replace(entries(11, 11, 3))); err != nil {
		t.Fatal(err)
	}
	if got := ranges(0); got != "" {
		t.Fatal(got)
	}
}

func TestAHungDiskIsSeenByThoseWhoDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Pointer[chan struct{}]
		fs := syncs(vfs.NewMem(), func() {
			if h := hang.Load(); h != nil {
				<-*h
			}
		})
		observed := map[raftlog.Operation]time.Duration{}
		s, err := raftlog.Open(raftlog.Options{FS: fs, Dir: dir, Observe: func(op raftlog.Operation, took time.Duration, err error) {
			if err == nil {
				observed[op] += took
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, busy := s.Stalled(); busy {
			t.Fatal("busy")
		}
		release := make(chan struct{})
		hang.Store(&release)
		done := make(chan error)
		go func() { done <- s.StoreLogs(entries(1, 3, 1)) }()
		time.Sleep(7 * time.Second)
		op, since, busy := s.Stalled()
		if !busy || op != raftlog.Append || since != 7*time.Second {
			t.Fatal(op, since, busy)
		}
		hang.Store(nil)
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, _, busy := s.Stalled(); busy || observed[raftlog.Append] != 7*time.Second {
			t.Fatal(busy, observed)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
