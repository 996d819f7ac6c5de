package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pelago/dimse/scu"
)

// Every valid sample comes out byte for byte by every way, as it lies in
// staging and as it lies in a pack, whichever way it went in. Samples that share
// a SOP Instance UID go to nodes of their own.
func TestEverySampleComesOutByteForByte(t *testing.T) {
	for name, in := range map[string]func(n *node, all []instance){"C-STORE": (*node).cstore, "STOW-RS": (*node).stow} {
		t.Run(name, func(t *testing.T) {
			for i, wave := range waves(loadCorpus(t).valid) {
				t.Run(fmt.Sprint("wave ", i), func(t *testing.T) {
					n := start(t)
					own := listen(t)
					n.register("OWN", own.port)
					in(n, wave)
					n.counts(len(wave) - reserved(wave))
					everyWay(n, own, "from staging", wave)
					n.pack()
					everyWay(n, own, "from packs", wave)
					n.verifyClean()
					n.stop()
				})
			}
		})
	}
}

// reserved counts the instances that are kept outside of query counts.
func reserved(all []instance) (n int) {
	for _, in := range all {
		if in.nonPatient() {
			n++
		}
	}
	return n
}

// everyWay retrieves everything by C-GET, C-MOVE and WADO-RS.
func everyWay(n *node, own *destination, where string, all []instance) {
	n.t.Helper()
	n.cget(all).same(n.t, "C-GET "+where, all)
	own.got = &arrivals{}
	if failed := n.cmove("OWN", all); len(failed) > 0 {
		n.t.Errorf("C-MOVE %s: %v failed", where, failed)
	}
	own.got.same(n.t, "C-MOVE "+where, all)
	n.wado(all).same(n.t, "WADO-RS "+where, all)
}

// storescp receives from a node what it receives from the client that stored,
// in so far as it takes the transfer syntax at all; the node reports the rest as
// failed.
func TestStorescpReceivesFromUsWhatTheSenderSent(t *testing.T) {
	for i, wave := range waves(loadCorpus(t).valid) {
		if i > 2 {
			break // the rest are further encodings of few images
		}
		port, direct := storescp(t, "+B", "+xa")
		refused := map[string]bool{}
		sender := scu.NewSender(scu.Target{Addr: "127.0.0.1:" + port, Called: "ANY", Calling: "E2E"}, kinds(wave), 1)
		for _, in := range wave {
			if _, err := sender.Store(t.Context(), in.outgoing(), scu.Originator{}); err != nil {
				refused[in.sop] = true
			}
		}
		if err := sender.Close(t.Context()); err != nil {
			t.Error(err)
		}
		want := received(t, direct)
		if len(want)+len(refused) != len(wave) || len(want) < len(wave)*3/4 {
			t.Errorf("storescp took %d of %d and refused %d", len(want), len(wave), len(refused))
		}

		n := start(t)
		n.cstore(wave)
		for _, where := range []string{"from staging", "from packs"} {
			if where == "from packs" {
				n.pack()
			}
			port, moved := storescp(t, "+B", "+xa")
			n.register("STORESCP", port)
			failed := map[string]bool{}
			for _, sop := range n.cmove("STORESCP", wave) {
				failed[sop] = true
			}
			if !maps.Equal(failed, refused) {
				t.Errorf("C-MOVE %s: failed %v, storescp refuses %v", where, slices.Sorted(maps.Keys(failed)), slices.Sorted(maps.Keys(refused)))
			}
			got := received(t, moved)
			for name, file := range want {
				if got[name] != file {
					t.Errorf("C-MOVE %s: storescp received %s otherwise", where, name)
				}
			}
			if len(got) != len(want) {
				t.Errorf("C-MOVE %s: storescp received %d files, want %d", where, len(got), len(want))
			}
		}
		n.stop()
	}
}
