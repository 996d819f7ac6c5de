package group_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"pelago/cluster/fault"
)

// set changes a machine under its lock.
func (m *toy) set(change func(*toy)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m)
}

// holdVerifying has verifications wait until what it returns is closed.
func (m *toy) holdVerifying() chan struct{} {
	m.verifying = make(chan struct{})
	return m.verifying
}

// breakAll makes what may be copied broken.
func (w *world) breakAll() {
	for _, m := range w.members[:3] {
		m.machine.set(func(m *toy) { m.breach = true })
	}
}

func (m *toy) verifications() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.verified
}

// copying is a network of three with a fourth node, whose catalogue is a copy.
// prepared is called before that node starts.
func copying(t *testing.T, prepared func(w *world, n *member), test func(w *world, n *member)) {
	t.Helper()
	network(t, cutting(), func(w *world) {
		w.growAndCut()
		n := w.add("Site 4")
		prepared(w, n)
		w.record(n, nil)
		n.start()
		w.until("the copy", time.Minute, func() bool { return n.machine.copied() == 1 })
		test(w, n)
	})
}

// offers is the status of the answer to who wants to copy a node's catalogue.
func (m *member) offers() int {
	w := httptest.NewRecorder()
	m.group.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/raft/checkpoint?generation=0&index=1", nil))
	return w.Code
}

// A copy is in use before it is verified, but nobody copies it further.
func TestACopyIsVerifiedInUse(t *testing.T) {
	var hold chan struct{} // of the bubble
	copying(t, func(_ *world, n *member) { hold = n.machine.holdVerifying() }, func(w *world, n *member) {
		n.mustPropose("from the new one")
		if n.offers() != http.StatusServiceUnavailable {
			t.Errorf("what nobody has verified is offered: %d", n.offers())
		}
		n.stop() // which ends the verification
		n.start()
		n.mustPropose("after a restart")
		if n.machine.verifications() != 0 || n.offers() == http.StatusOK {
			t.Error("a restart has verified it")
		}
		close(hold)
		w.until("the verification", time.Minute, func() bool { return n.offers() == http.StatusOK })
		n.stop()
		n.start()
		n.mustPropose("verified once")
		if n.machine.verifications() != 1 {
			t.Errorf("%d verifications", n.machine.verifications())
		}
	})
}

// What a node finds broken it takes anew, from another node than before: that one
// would offer the same again.
func TestABrokenCopyIsTakenAnewFromAnother(t *testing.T) {
	copying(t, func(w *world, _ *member) { w.breakAll() }, func(w *world, n *member) {
		w.until("the fence", time.Minute, func() bool { return fault.Is(n.group.Fenced(), fault.Corrupt) })
		sources := 0
		for _, m := range w.members[:3] {
			if m.fetched() > 0 {
				sources++
				continue
			}
			m.machine.set(func(m *toy) { m.breach = false })
		}
		if sources != 1 {
			t.Fatalf("copied from %d nodes", sources)
		}
		if n.offers() == http.StatusOK {
			t.Error("what is broken is offered")
		}
		w.until("the repair", 10*time.Minute, func() bool { return n.group.Fenced() == nil })
		w.until("the verification", time.Minute, func() bool { return n.offers() == http.StatusOK })
		if n.machine.copied() != 2 || n.machine.verifications() != 2 {
			t.Errorf("%d copies, %d verifications", n.machine.copied(), n.machine.verifications())
		}
		n.mustPropose("whole again")
		w.converge()
	})
}

// A node that is found broken after a crash is fenced as well.
func TestACopyIsFoundBrokenAfterARestart(t *testing.T) {
	var hold chan struct{} // of the bubble
	copying(t, func(w *world, n *member) {
		hold = n.machine.holdVerifying()
		w.breakAll()
	}, func(w *world, n *member) {
		n.stop()
		close(hold)
		n.start()
		w.until("the fence", time.Minute, func() bool { return fault.Is(n.group.Fenced(), fault.Corrupt) })
		n.stop()
		n.start()
		if !fault.Is(n.group.Fenced(), fault.Corrupt) {
			t.Error("a restart has forgotten the fence")
		}
	})
}

// A copy that takes the place of another does not wait for the verification of that.
func TestANewCopyEndsTheVerificationOfTheLast(t *testing.T) {
	var hold chan struct{} // of the bubble
	copying(t, func(_ *world, n *member) { hold = n.machine.holdVerifying() }, func(w *world, n *member) {
		w.settle(3, 4)
		n.machine.set(func(m *toy) { m.rot = true })
		n.mustPropose("applied as something else")
		w.until("the fence", time.Minute, func() bool { return n.group.Fenced() != nil })
		n.machine.set(func(m *toy) { m.rot = false })
		w.until("the repair", 10*time.Minute, func() bool { return n.group.Fenced() == nil })
		if n.machine.copied() != 2 || n.machine.verifications() != 0 {
			t.Errorf("%d copies, %d verifications", n.machine.copied(), n.machine.verifications())
		}
		close(hold)
		w.until("the verification", time.Minute, func() bool { return n.offers() == http.StatusOK })
		w.converge()
	})
}

// A node that is stopped while it takes a copy in does not fetch it again.
func TestAStopDoesNotCostTheCopy(t *testing.T) {
	network(t, cutting(), func(w *world) {
		w.growAndCut()
		fetched := func() (files int) {
			for _, m := range w.members[:3] {
				files += m.fetched()
			}
			return files
		}
		n := w.add("Site 4")
		n.machine.preparing = make(chan struct{})
		w.record(n, nil)
		n.start()
		w.until("all files", time.Minute, func() bool { return fetched() == toyFiles })
		time.Sleep(time.Second)
		n.stop()
		n.machine.preparing = nil
		n.start()
		w.until("the copy", time.Minute, func() bool { return n.machine.copied() == 1 })
		if again := fetched() - toyFiles; again > 0 {
			t.Errorf("%d files were fetched again", again)
		}
	})
}
