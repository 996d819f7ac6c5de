package raftlog_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"pelago/replication/raftlog"
)

func clone(t *testing.T, fs vfs.FS, from, to string) {
	t.Helper()
	if err := fs.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if ok, err := vfs.Clone(fs, fs, from, to); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

func vote(t *testing.T, s *raftlog.Store, term uint64) {
	t.Helper()
	if err := s.SetUint64([]byte("LastVoteTerm"), term); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("LastVoteCand"), []byte("x")); err != nil {
		t.Fatal(err)
	}
}

func TestAnEarlierCopyOfALogIsKnownForOne(t *testing.T) {
	for name, test := range map[string]struct {
		since func(t *testing.T, s *raftlog.Store) // the copy was made
		crash bool
		older bool
	}{
		"nothing came since":          {func(*testing.T, *raftlog.Store) {}, true, false},
		"a vote":                      {func(t *testing.T, s *raftlog.Store) { vote(t, s, 7) }, true, true},
		"an entry, and a stop":        {func(t *testing.T, s *raftlog.Store) { mustStore(t, s, 3, 3) }, false, true},
		"an entry that was marked":    {func(t *testing.T, s *raftlog.Store) { mustStore(t, s, 3, 3); mustMark(t, s) }, true, true},
		"an entry that is gone again": {func(t *testing.T, s *raftlog.Store) { mustStore(t, s, 3, 3); mustMark(t, s); cut(t, s, 3, 3) }, true, false},
		"another entry in its place": {func(t *testing.T, s *raftlog.Store) {
			cut(t, s, 2, 2)
			if err := s.StoreLogs(entries(2, 2, 2)); err != nil {
				t.Fatal(err)
			}
			mustMark(t, s)
		}, true, true},
		"all entries are gone":            {func(t *testing.T, s *raftlog.Store) { mustStore(t, s, 3, 3); mustMark(t, s); cut(t, s, 1, 3) }, true, false},
		"a prefix was cut, an entry came": {func(t *testing.T, s *raftlog.Store) { cut(t, s, 1, 1); mustStore(t, s, 3, 3) }, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			fs := vfs.NewCrashableMem()
			s := open(t, fs)
			mustStore(t, s, 1, 2)
			if err := s.Mark(); err != nil {
				t.Fatal(err)
			}
			copied := fs.CrashClone(vfs.CrashCloneCfg{}) // within the same start
			test.since(t, s)
			after := fs.CrashClone(vfs.CrashCloneCfg{})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if !test.crash {
				after = fs
			}
			if err := after.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if ok, err := vfs.Clone(copied, after, dir, dir); !ok || err != nil {
				t.Fatal(ok, err)
			}
			s = open(t, after)
			if s.Older() != test.older {
				t.Fatalf("older: %t, want %t", s.Older(), test.older)
			}
			// It stays so over starts, whatever else happens, until it is renewed.
			if err := s.Mark(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s = open(t, after); s.Older() != test.older {
					t.Fatalf("at the next start older: %t, want %t", s.Older(), test.older)
				}
			}
			if err := s.Renew(); err != nil {
				t.Fatal(err)
			}
			if s.Older() {
				t.Error("older after it was renewed")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, after)
			if s.Older() {
				t.Error("older at the start after it was renewed")
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestACopyOfAnEarlierStartIsKnownForOne(t *testing.T) {
	fs := vfs.NewMem()
	for range 2 {
		s := open(t, fs)
		if s.Older() || !s.Fresh() {
			t.Fatalf("older %t, fresh %t", s.Older(), s.Fresh())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	clone(t, fs, dir, "aside")
	if err := open(t, fs).Close(); err != nil {
		t.Fatal(err)
	}
	clone(t, fs, "aside", dir)
	if s := open(t, fs); !s.Older() {
		t.Error("a log that was opened once more since passes for the latest")
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// So is one that is gone, and one whose mark is rotten.
	if err := fs.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s := open(t, fs)
	if !s.Older() || !s.Fresh() {
		t.Errorf("lost: older %t, fresh %t", s.Older(), s.Fresh())
	}
	if err := s.Renew(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create(dir+".mark", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("rotten")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, fs)
	if !s.Older() {
		t.Error("nothing tells that this log is the latest")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustStore(t *testing.T, s *raftlog.Store, first, last uint64) {
	t.Helper()
	var logs []*raft.Log
	for i := first; i <= last; i++ {
		logs = append(logs, entry(i, 1))
	}
	if err := s.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, s *raftlog.Store, first, last uint64) {
	t.Helper()
	if err := s.DeleteRange(first, last); err != nil {
		t.Fatal(err)
	}
}

func mustMark(t *testing.T, s *raftlog.Store) {
	t.Helper()
	if err := s.Mark(); err != nil {
		t.Fatal(err)
	}
}
