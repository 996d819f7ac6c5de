package raftlog_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication/raftlog"
)

const dir = "raft"

func open(t testing.TB, fs vfs.FS) *raftlog.Store {
	t.Helper()
	s, err := raftlog.Open(raftlog.Options{FS: fs, Dir: dir, Mark: dir + ".mark"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, fs vfs.FS) *raftlog.Store {
	s := open(t, fs)
	t.Cleanup(func() { s.Close() })
	return s
}

// entry is the entry that tests expect at an index and a term.
func entry(index, term uint64) *raft.Log {
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "entry %d of term %d", index, term),
		AppendedAt: time.Unix(1_700_000_000+int64(index), 0),
	}
}

func entries(from, to, term uint64) []*raft.Log {
	var all []*raft.Log
	for i := from; i <= to; i++ {
		all = append(all, entry(i, term))
	}
	return all
}

func store(t testing.TB, s *raftlog.Store, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

// expect fails unless the log holds exactly what is given.
func expect(t testing.TB, s *raftlog.Store, logs []*raft.Log) {
	t.Helper()
	var first, last uint64
	if len(logs) > 0 {
		first, last = logs[0].Index, logs[len(logs)-1].Index
	}
	if f, l := s.Bounds(); f != first || l != last {
		t.Fatalf("bounds %d to %d, want %d to %d", f, l, first, last)
	}
	for _, want := range logs {
		var got raft.Log
		if err := s.GetLog(want.Index, &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&got, want) {
			t.Fatalf("entry %d: %+v, want %+v", want.Index, got, *want)
		}
	}
	for _, outside := range []uint64{0, first - 1, last + 1} {
		var got raft.Log
		if err := s.GetLog(outside, &got); len(logs) > 0 && err != raft.ErrLogNotFound {
			t.Fatalf("entry %d outside the bounds: %v", outside, err)
		}
	}
}

func TestTheLogIsDenseAndSurvivesARestart(t *testing.T) {
	join := func(parts ...[]*raft.Log) (all []*raft.Log) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	tests := []struct {
		name string
		do   func(s *raftlog.Store) error
		want []*raft.Log
		kind fault.Kind // of the error
	}{
		{"nothing", func(*raftlog.Store) error { return nil }, entries(5, 14, 2), fault.Other},
		{"append", func(s *raftlog.Store) error { return s.StoreLogs(entries(15, 16, 3)) }, join(entries(5, 14, 2), entries(15, 16, 3)), fault.Other},
		{"append nothing", func(s *raftlog.Store) error { return s.StoreLogs(nil) }, entries(5, 14, 2), fault.Other},
		{"a gap", func(s *raftlog.Store) error { return s.StoreLogs(entries(16, 17, 3)) }, entries(5, 14, 2), fault.Invalid},
		{"a gap inside", func(s *raftlog.Store) error { return s.StoreLogs(join(entries(15, 15, 3), entries(17, 17, 3))) }, entries(5, 14, 2), fault.Invalid},
		{"overwriting", func(s *raftlog.Store) error { return s.StoreLog(entry(14, 3)) }, entries(5, 14, 2), fault.Invalid},
		{"cut a prefix", func(s *raftlog.Store) error { return s.DeleteRange(1, 9) }, entries(10, 14, 2), fault.Other},
		{"cut a suffix", func(s *raftlog.Store) error { return s.DeleteRange(10, 14) }, entries(5, 9, 2), fault.Other},
		{"cut a suffix and append", func(s *raftlog.Store) error {
			return errors.Join(s.DeleteRange(10, 14), s.StoreLogs(entries(10, 12, 3)))
		}, join(entries(5, 9, 2), entries(10, 12, 3)), fault.Other},
		{"cut everything", func(s *raftlog.Store) error { return s.DeleteRange(5, 14) }, nil, fault.Other},
		{"begin elsewhere", func(s *raftlog.Store) error {
			return errors.Join(s.DeleteRange(1, 99), s.StoreLogs(entries(1000, 1001, 7)))
		}, entries(1000, 1001, 7), fault.Other},
		{"cut nothing", func(s *raftlog.Store) error { return s.DeleteRange(15, 20) }, entries(5, 14, 2), fault.Other},
		{"a hole", func(s *raftlog.Store) error { return s.DeleteRange(7, 9) }, entries(5, 14, 2), fault.Invalid},
		{"too long", func(s *raftlog.Store) error {
			return s.StoreLog(&raft.Log{Index: 15, Term: 2, Data: make([]byte, raftlog.MaxEntryBytes+1)})
		}, entries(5, 14, 2), fault.Invalid},
		{"of an unknown type", func(s *raftlog.Store) error { return s.StoreLog(&raft.Log{Index: 15, Term: 2, Type: 99}) }, entries(5, 14, 2), fault.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := vfs.NewMem()
			s := open(t, fs)
			if !s.Fresh() {
				t.Fatal("a new store is not fresh")
			}
			expect(t, s, nil)
			if err := s.SetUint64([]byte("CurrentTerm"), 2); err != nil {
				t.Fatal(err)
			}
			store(t, s, entries(5, 14, 2))
			if err := tt.do(s); fault.KindOf(err) != tt.kind || (err != nil) != (tt.kind != fault.Other) {
				t.Fatalf("error %v, want kind %v", err, tt.kind)
			}
			expect(t, s, tt.want)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = opened(t, fs)
			if s.Fresh() {
				t.Fatal("a store that was used is fresh")
			}
			expect(t, s, tt.want)
		})
	}
}

func TestEveryFieldOfAnEntryIsKept(t *testing.T) {
	s := opened(t, vfs.NewMem())
	logs := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: bytes.Repeat([]byte{7}, raftlog.MaxEntryBytes+1)},
		{Index: 2, Term: 9, Type: raft.LogNoop},
		{Index: 3, Term: 9, Type: raft.LogCommand, Data: []byte{0}, Extensions: []byte{1, 2}, AppendedAt: time.Unix(1, 2)},
		{Index: 4, Term: 1<<64 - 1, Type: raft.LogBarrier, AppendedAt: time.Unix(-5, 0)},
	}
	store(t, s, logs)
	expect(t, s, logs)
}

func TestAVoteIsWrittenWholeOrNotAtAll(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	vote := func(term uint64, candidate string) {
		t.Helper()
		got, err := s.GetUint64([]byte("LastVoteTerm"))
		name, err2 := s.Get([]byte("LastVoteCand"))
		if err := errors.Join(err, err2); err != nil || got != term || string(name) != candidate {
			t.Fatalf("vote %d %q %v, want %d %q", got, name, err, term, candidate)
		}
	}
	vote(0, "")
	if name, _ := s.Get([]byte("LastVoteCand")); name != nil {
		t.Fatal("a candidate before the first vote: the library takes it for one that was given")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.SetUint64([]byte("LastVoteTerm"), 4))
	vote(0, "")
	must(s.Set([]byte("LastVoteCand"), []byte("a")))
	vote(4, "a")
	must(s.SetUint64([]byte("LastVoteTerm"), 5)) // and no candidate
	vote(4, "a")
	must(s.Close())
	s = open(t, fs)
	vote(4, "a")
	must(s.Set([]byte("LastVoteCand"), []byte("a"))) // the term held back did not outlive the process
	vote(4, "a")
	must(s.SetUint64([]byte("LastVoteTerm"), 6))
	must(s.SetUint64([]byte("LastVoteTerm"), 7))
	must(s.Set([]byte("LastVoteCand"), []byte("b")))
	vote(7, "b")
	must(s.Close())
}

func TestStableValues(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, fs)
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 0 || err != nil {
		t.Fatal(v, err)
	}
	if v, err := s.Get([]byte("x")); v != nil || err != nil {
		t.Fatal(v, err)
	}
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 1<<63), s.Set([]byte("x"), []byte("y"))); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("x"), make([]byte, 1<<20)); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("x")); !fault.Is(err, fault.Corrupt) {
		t.Fatal(err)
	}
	s.Close()
	s = opened(t, fs)
	if v, err := s.GetUint64([]byte("CurrentTerm")); v != 1<<63 || err != nil || s.Fresh() {
		t.Fatal(v, err)
	}
	row, err := s.Row([]byte("sCurrentTerm"))
	if err != nil {
		t.Fatal(err)
	}
	row[3] ^= 1
	if err := s.SetRow([]byte("sCurrentTerm"), row); err != nil {
		t.Fatal(err)
	}
	if _, err := s.GetUint64([]byte("CurrentTerm")); !fault.Is(err, fault.Corrupt) {
		t.Fatal("a term that fails its checksum:", err)
	}
}

func TestGoldenRows(t *testing.T) {
	s := opened(t, vfs.NewMem())
	store(t, s, []*raft.Log{
		{Index: 258, Term: 3, Type: raft.LogCommand, Data: []byte("facts"), AppendedAt: time.Unix(1_700_000_000, 5)},
		{Index: 259, Term: 3, Type: raft.LogNoop, Extensions: []byte{0xEE}},
	})
	if err := errors.Join(s.SetUint64([]byte("CurrentTerm"), 3), s.SetUint64([]byte("LastVoteTerm"), 3),
		s.Set([]byte("LastVoteCand"), []byte("site-a"))); err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, key := range [][]byte{raftlog.LogKey(258), raftlog.LogKey(259), []byte("sCurrentTerm"), []byte("v")} {
		row, err := s.Row(key)
		if err != nil || row == nil {
			t.Fatal(key, row, err)
		}
		fmt.Fprintf(&got, "%s %s\n", hex.EncodeToString(key), hex.EncodeToString(row))
	}
	path := filepath.Join("testdata", "rows.hex")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("rows changed:\n%swant\n%s", got.String(), want)
	}
}

func TestARowOfALaterVersionIsNotRead(t *testing.T) {
	s := opened(t, vfs.NewMem())
	store(t, s, entries(1, 2, 1))
	key := raftlog.LogKey(2)
	row := raftlog.EncodeEntry(key, entry(2, 1))
	row[0] = 2
	if err := raftlog.DecodeEntry(row, key, new(raft.Log)); !fault.Is(err, fault.Corrupt) {
		t.Fatal("a version that the checksum does not cover:", err)
	}
	row = raftlog.Reseal(key, row)
	if err := s.SetRow(key, row); err != nil {
		t.Fatal(err)
	}
	if err := s.GetLog(2, new(raft.Log)); !fault.Is(err, fault.Unsupported) {
		t.Fatal(err)
	}
	if _, err := s.Check(context.Background(), 1); !fault.Is(err, fault.Unsupported) {
		t.Fatal(err)
	}
}

func TestFirstSinceFindsTheYoungEntries(t *testing.T) {
	s := opened(t, vfs.NewMem())
	if i := s.FirstSince(time.Now()); i != 0 {
		t.Fatal(i)
	}
	store(t, s, entries(10, 40, 1)) // appended at 1,700,000,000 s and their index
	for _, tt := range []struct {
		at   int64
		want uint64
	}{{0, 10}, {10, 10}, {11, 11}, {25, 25}, {40, 40}, {41, 41}} {
		if got := s.FirstSince(time.Unix(1_700_000_000+tt.at, 0)); got != tt.want {
			t.Errorf("since %d: %d, want %d", tt.at, got, tt.want)
		}
	}
}

func FuzzEntry(f *testing.F) {
	key := raftlog.LogKey(7)
	f.Add(raftlog.EncodeEntry(key, entry(7, 1)))
	f.Add(raftlog.EncodeEntry(key, &raft.Log{Index: 7}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, row []byte) {
		// As it is, and with a checksum that holds.
		for _, row := range [][]byte{row, raftlog.Reseal(key, append(bytes.Clone(row), 0, 0, 0, 0))} {
			var l raft.Log
			if err := raftlog.DecodeEntry(row, key, &l); err == nil && !bytes.Equal(raftlog.EncodeEntry(key, &l), row) {
				t.Errorf("%x reads as %+v", row, l)
			}
		}
	})
}
