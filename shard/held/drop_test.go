package held

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/shard/bulk"
	"pelago/shard/bulk/bulktest"
)

// Nothing is given up for a reason that does not hold.
func TestAShardIsDroppedForAReasonOnly(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	m := encode(t, 1, small, 20_000)
	h.land(m.offer(0))
	key, other := otherKey(t)
	strangerKey, _ := otherKey(t)
	moved := signReceipt(other, []Entry{m.entry(0)})
	wrongRoot := m.entry(0)
	wrongRoot.Root[0] ^= 1
	forged := signReceipt(other, []Entry{m.entry(0)})
	forged.Entries = []Entry{m.entry(0), m.entry(1)}
	for name, why := range map[string]Reason{
		"an earlier generation":         Superseded{Generation: 1, Root: [32]byte{1}},
		"no seal":                       Superseded{Generation: 2},
		"no receipt":                    Moved{},
		"a receipt of its own":          Moved{Receipt: signReceipt(h.self, []Entry{m.entry(0)}), Key: h.self.Public()},
		"a receipt of another shard":    Moved{Receipt: signReceipt(other, []Entry{m.entry(1)}), Key: key},
		"a receipt of another root":     Moved{Receipt: signReceipt(other, []Entry{wrongRoot}), Key: key},
		"a receipt of another's key":    Moved{Receipt: moved, Key: strangerKey},
		"a receipt that was changed":    Moved{Receipt: forged, Key: key},
		"a receipt without a signature": Moved{Receipt: &Receipt{Holder: other.ID(), Entries: []Entry{m.entry(0)}}, Key: key},
		"no purge":                      Purged{},
	} {
		if n, err := h.Drop(t.Context(), why, m.name(0)); err == nil || n != 0 {
			t.Errorf("dropped for %s", name)
		}
	}
	h.check(m, 0)
	if n, err := h.Drop(t.Context(), Moved{Receipt: moved, Key: key}, m.name(0), m.name(1)); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	h.checkGone(m.name(0))
	if len(h.blobs()) != 0 {
		t.Errorf("left %v", h.blobs())
	}
}

func TestItIsRememberedWhyAShardWasDropped(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	stripes := []*made{encode(t, 1, small, 20_000), encode(t, 2, small, 30_000), encode(t, 3, small, 4_000)}
	for _, m := range stripes {
		h.land(m.offer(0))
	}
	key, other := otherKey(t)
	reasons := []Reason{Superseded{2, [32]byte{9}}, Moved{Receipt: signReceipt(other, []Entry{stripes[1].entry(0)}), Key: key}, Purged{77}}
	for i, why := range reasons {
		if n, err := h.Drop(t.Context(), why, stripes[i].name(0)); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		if n, err := h.Drop(t.Context(), why, stripes[i].name(0)); err != nil || n != 0 {
			t.Errorf("dropped again: %d, %v", n, err)
		}
	}
	h = h.reopen()
	for i, m := range stripes {
		st, err := h.Status(m.name(0))
		if err != nil || st.State != Dropped || st.Reason.String() != reasons[i].String() || st.Root != m.head.Root() {
			t.Errorf("%+v, %v, want %v", st, err, reasons[i])
		}
		claims, body := batch(m.offer(0))
		l, err := h.Land(t.Context(), claims, bytes.NewReader(body))
		if want := []Outcome{Refused, Stored, Refused}[i]; err != nil || l.Outcomes[0] != want {
			t.Errorf("offered again after %v: %v, %v, want %v", reasons[i], l, err, want)
		}
	}
	h.check(stripes[1], 0)
	h.close()
}

func TestReasonsAreForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := newMemRows()
		s := &Store{o: Options{Rows: rows, Self: testSigner{}}, opened: newRecent()}
		s.o.setDefaults()
		n := Name{Index: 1}
		n.Generation = 1
		one := row{state: Dropped, when: now(), detail: Purged{4}.append(nil)}
		rows.Commit(map[string][]byte{keyShard(n): one.append(nil), keyDropped(one.when, n): {}})
		time.Sleep(s.o.KeepReasons - time.Minute)
		if err := s.forgetReasons(); err != nil || len(rows.Keys()) != 2 {
			t.Errorf("%v, %d rows", err, len(rows.Keys()))
		}
		time.Sleep(2 * time.Minute)
		if err := s.forgetReasons(); err != nil || len(rows.Keys()) != 0 {
			t.Errorf("%v, %d rows", err, len(rows.Keys()))
		}
	})
}

// rot flips a byte of a held shard on disk, at a part of its length.
func (h *holder) rot(m *made, i int, part float64) *holder {
	h.t.Helper()
	h.close()
	names, err := h.fs.List("data/bulk/tables")
	if err != nil {
		h.t.Fatal(err)
	}
	at := int(float64(len(m.shards[i])) * part)
	piece := m.shards[i][at : at+40]
	for _, name := range names {
		path := h.fs.PathJoin("data/bulk/tables", name)
		f, err := h.fs.Open(path)
		if err != nil {
			h.t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			h.t.Fatal(err)
		}
		b := make([]byte, info.Size())
		f.ReadAt(b, 0)
		f.Close()
		if where := bytes.Index(b, piece); where >= 0 {
			bulktest.Rot(h.t, h.fs, path, int64(where)+3)
			return open(h.t, h.fs, nil)
		}
	}
	h.t.Fatal("the shard's bytes are nowhere")
	return nil
}

// Rot is told of once, whoever meets it first, and remembered; another copy takes
// its place.
func TestRotIsToldOfOnceAndRepaired(t *testing.T) {
	for name, meet := range map[string]func(h *holder, m *made) error{
		"a reader of leaves": func(h *holder, m *made) error {
			sh, err := h.Shard(m.name(0))
			if err != nil {
				return err
			}
			g, err := m.head.Geometry()
			if err != nil {
				return err
			}
			_, _, err = sh.Range(0, g.Rows())
			return err
		},
		"verification": func(h *holder, m *made) error {
			if err := h.Verify(h.t.Context(), nil); err != nil {
				h.t.Error(err)
			}
			_, err := h.Shard(m.name(0))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, vfs.NewMem(), nil)
			// short: Pebble looks for a flipped bit in a rotten block by trying them all
			m, sound := encode(t, 1, small, 5_000), encode(t, 2, larger, 2<<20)
			h.land(m.offer(0))
			h.land(sound.offer(0))
			h = h.rot(m, 0, 0.5)
			for range 2 {
				if err := meet(h, m); !fault.Is(err, fault.Corrupt) {
					t.Errorf("%v, want corrupt", err)
				}
			}
			if !slices.Equal(h.told(), []Name{m.name(0)}) {
				t.Errorf("told of %v", h.told())
			}
			h = h.reopen()
			var lost []Status
			if err := h.EachLost(func(st Status) (bool, error) { lost = append(lost, st); return true, nil }); err != nil {
				t.Fatal(err)
			}
			if len(lost) != 1 || lost[0].Entry != m.entry(0) || lost[0].Cause == "" || len(h.told()) != 0 {
				t.Errorf("remembered %+v, told of %v", lost, h.told())
			}
			if l, err := h.Ask([]Entry{m.entry(0)}); err != nil || l.Outcomes[0] != Rotten || l.Receipt != nil {
				t.Errorf("asked: %v, %v", l, err)
			}
			h.check(sound, 0)
			if l := h.land(m.offer(0)); l.Outcomes[0] != Stored {
				t.Errorf("repair: %v", l.Outcomes)
			}
			h = h.reopen()
			h.check(m, 0)
			if n := len(h.blobs()); n != 2 || h.listed()[m.name(0)] != Held {
				t.Errorf("%d blobs, listed %v", n, h.listed())
			}
			h.close()
		})
	}
}

// A table that is missing when bulk/ opens is noted before there is a store.
func TestAMissingTableIsNotedAtOpen(t *testing.T) {
	fs := vfs.NewMem()
	h := open(t, fs, nil)
	a, b, c := encode(t, 1, small, 20_000), encode(t, 2, small, 30_000), encode(t, 3, small, 4_000)
	h.land(a.offer(0), b.offer(0))
	h.land(c.offer(0))
	h.close()
	names, _ := fs.List("data/bulk/tables")
	var tables []string
	for _, n := range names {
		if len(n) > 4 && n[len(n)-4:] == ".sst" {
			tables = append(tables, n)
		}
	}
	slices.Sort(tables)
	if err := fs.Remove("data/bulk/tables/" + tables[0]); err != nil {
		t.Fatal(err)
	}
	h = open(t, fs, nil)
	if l := h.listed(); l[a.name(0)] != Lost || l[b.name(0)] != Lost || l[c.name(0)] != Held {
		t.Errorf("listed %v", l)
	}
	if _, err := h.Shard(a.name(0)); !fault.Is(err, fault.Corrupt) {
		t.Errorf("%v, want corrupt", err)
	}
	h.land(a.offer(0), b.offer(0))
	h.check(a, 0)
	if n, err := h.Drop(t.Context(), Purged{1}, b.name(0)); n != 1 || err != nil {
		t.Error(n, err)
	}
	h.close()
}

// What a drop takes away under a reader is not rot.
func TestADroppedShardIsNotLost(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	m := encode(t, 1, larger, 2<<20)
	h.land(m.offer(0))
	sh, err := h.Shard(m.name(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Drop(t.Context(), Purged{1}, m.name(0)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sh.Range(0, 1); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v, want not found", err)
	}
	if len(h.told()) > 0 {
		t.Errorf("told of %v", h.told())
	}
}

// A disk that does not answer is no loss.
func TestAReadErrorIsNoLoss(t *testing.T) {
	h := open(t, vfs.NewMem(), nil)
	defer h.close()
	m := encode(t, 1, small, 2_000)
	h.land(m.offer(0))
	r := &readable{store: h.Store, name: m.name(0), ref: bulk.Ref{Space: bulk.Held}}
	cause := fault.New(fault.Unavailable, "input/output error")
	if _, err := r.met(cause); !errors.Is(err, cause) {
		t.Error(err)
	}
	if len(h.told()) > 0 || h.listed()[m.name(0)] != Held {
		t.Errorf("told of %v", h.told())
	}
}
