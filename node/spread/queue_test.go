package spread

import (
	"encoding/binary"
	"testing"
	"time"

	"pelago/shard/pack"
)

func TestTheLineIsBoundedForWhoWaitsAsWell(t *testing.T) {
	q := newQueue()
	n := uint64(0)
	add := func(hurried bool) bool {
		n++
		it := &item{id: pack.ID(binary.BigEndian.AppendUint64(make([]byte, 8), n)), bytes: 1, since: time.Unix(1, 0)}
		it.hurried.Store(hurried)
		return q.add(it)
	}
	for range maxItems {
		if !add(false) {
			t.Fatal("there is no room")
		}
	}
	if add(false) || q.beyond != 1 {
		t.Errorf("%d are beyond", q.beyond)
	}
	for range maxHurried {
		if !add(true) {
			t.Fatal("there is no room for what somebody waits for")
		}
	}
	for range 10 {
		if add(true) {
			t.Fatal("there is room without end")
		}
	}
	if packs, _ := q.waiting(); packs != maxItems+maxHurried+1 {
		t.Errorf("%d wait", packs)
	}
	first := &item{id: pack.ID(binary.BigEndian.AppendUint64(make([]byte, 8), 1))}
	first.hurried.Store(true)
	if !q.add(first) || !q.items[first.id].hurried.Load() {
		t.Error("what is in line cannot be hurried")
	}
}
