package archive

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// A node that has just joined has no epoch keys for a moment.
func TestPackingWaitsForKeysAndStartsByItself(t *testing.T) {
	keys := newRing()
	keys.await(true)
	var log bytes.Buffer
	o := testOptions(vfs.NewMem(), keys)
	o.Quiet, o.Age, o.Gather = time.Nanosecond, time.Nanosecond, time.Nanosecond
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	a, err := openAlone(o)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{Archive: a, t: t}
	p := &packer{Archive: a, skip: newSkipping()}
	ctx := context.Background()
	if err := p.packDue(ctx); err != nil || a.PackingWaits() {
		t.Errorf("with nothing to pack: %v, waits %t", err, a.PackingWaits())
	}
	for n := range 4 { // storing needs no key
		b.store(serial(n))
		if err := p.packDue(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := p.packAll(ctx); !fault.Is(err, fault.Unavailable) {
		t.Errorf("packing all at once: %v", err)
	}
	packed := func() bool {
		packs, err := a.Packs(ctx, serial(0).study)
		if err != nil {
			t.Fatal(err)
		}
		return packs[0].ID != "staging"
	}
	if !a.PackingWaits() || packed() || a.Counters().PackErrors.Load() != 0 {
		t.Errorf("waits %t, packed %t, %d errors", a.PackingWaits(), packed(), a.Counters().PackErrors.Load())
	}
	for n := range 4 {
		b.same(serial(n))
	}
	keys.await(false)
	if err := p.packDue(ctx); err != nil {
		t.Error(err)
	}
	if a.PackingWaits() || !packed() || a.stuck.Load() {
		t.Errorf("once they are here: waits %t, packed %t, stuck %t", a.PackingWaits(), packed(), a.stuck.Load())
	}
	for n := range 4 {
		b.same(serial(n))
	}
	if err := closeAlone(a); err != nil {
		t.Error(err)
	}
	waits, goes := strings.Count(log.String(), "packing waits for keys"), strings.Count(log.String(), "packing goes on")
	if waits != 1 || goes != 1 || strings.Contains(log.String(), "packing failed") {
		t.Errorf("%d lines that it waits, %d that it goes on:\n%s", waits, goes, log.String())
	}
}
