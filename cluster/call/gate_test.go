package call

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
)

func TestAGateKeepsRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(3, 2)
		ctx := t.Context()
		leave := map[string]func(){}
		for _, who := range []string{"a1", "a2"} {
			var err error
			if leave[who], err = g.Enter(ctx, "a"); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := g.Enter(ctx, "a"); !fault.Is(err, fault.Unavailable) || time.Since(began) != gateWait {
			t.Errorf("a third of one node: %v after %v", err, time.Since(began))
		}
		b, err := g.Enter(ctx, "b")
		if err != nil {
			t.Fatalf("another node: %v", err)
		}
		if _, err := g.Enter(ctx, "c"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a fourth in all: %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := g.Enter(gone, "c"); !fault.Is(err, fault.Canceled) {
			t.Errorf("who is gone: %v", err)
		}
		entered := make(chan func())
		go func() {
			l, err := g.Enter(ctx, "a")
			if err != nil {
				t.Error(err)
			}
			entered <- l
		}()
		time.Sleep(time.Second)
		leave["a1"]()
		(<-entered)()
		leave["a2"]()
		b()
		if len(g.peers) != 0 || len(g.all) != 0 {
			t.Errorf("%d nodes remembered, %d inside", len(g.peers), len(g.all))
		}
	})
}

func TestWhatMovesIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stall := NewStall(t.Context(), time.Minute)
		defer stall.Stop()
		r := stall.Reader(strings.NewReader(strings.Repeat("x", 10)))
		for {
			time.Sleep(59 * time.Second)
			if _, err := r.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
				break
			}
			if ctx.Err() != nil {
				t.Fatal(context.Cause(ctx))
			}
		}
		time.Sleep(2 * time.Second)
		if ctx.Err() == nil || !fault.Is(context.Cause(ctx), fault.Unavailable) {
			t.Errorf("stalled: %v", context.Cause(ctx))
		}
	})
}
