package archive

import (
	"context"
	"reflect"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestFactIsTheSameWhetherRememberedOrRead(t *testing.T) {
	a, err := openAlone(testOptions(vfs.NewMem(), newRing()))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAlone(a)
	m := serial(3)
	in := m.incoming(m.encode(t))
	in.Sender.Charset, in.Sender.Issuer = "ISO_IR 144", "WARD"
	if _, err := a.Store(context.Background(), in); err != nil {
		t.Fatal(err)
	}
	if len(a.said.said) != 1 {
		t.Fatalf("%d instances are remembered", len(a.said.said))
	}
	remembered, err := facts{a, &a.said}.SeriesFact(context.Background(), m.study, m.series)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.said.said) != 0 {
		t.Error("what was told is still remembered")
	}
	read, err := facts{Archive: a}.SeriesFact(context.Background(), m.study, m.series)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(remembered, read) || read.Issuer != "WARD" || read.Arrived == 0 || len(read.Attributes) == 0 {
		t.Errorf("remembered %+v, read %+v", remembered, read)
	}
}

func TestOnlyTheLastSayingsAreRemembered(t *testing.T) {
	var y sayings
	const n = 2*maxSayings + 5
	for number := uint64(1); number <= n; number++ {
		y.put(number, saying{arrived: int64(number)})
	}
	if len(y.said) != maxSayings {
		t.Errorf("%d are remembered, want %d", len(y.said), maxSayings)
	}
	for number, want := range map[uint64]bool{n: true, n - maxSayings + 1: true, n - maxSayings: false, 1: false} {
		if s, ok := y.take(number); ok != want || ok && s.arrived != int64(number) {
			t.Errorf("instance %d: %+v, %t", number, s, ok)
		}
	}
	var none *sayings
	if _, ok := none.take(1); ok {
		t.Error("nothing remembers something")
	}
}
