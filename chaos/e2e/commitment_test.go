package e2e

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// commit asks for storage commitment and waits for the result on the same
// association.
func (n *node) commit(calling, transaction string, all ...instance) *dimse.CommitmentResult {
	n.t.Helper()
	result := n.tryCommit(calling, transaction, soon, all...)
	if result == nil {
		n.t.Fatal("no storage commitment result")
	}
	return result
}

// tryCommit is commit for who waits no longer than that; nil: there is no result.
func (n *node) tryCommit(calling, transaction string, most time.Duration, all ...instance) *dimse.CommitmentResult {
	n.t.Helper()
	results := make(chan *dimse.CommitmentResult, 1)
	target := n.target(calling)
	target.Committed = func(_ context.Context, r *dimse.CommitmentResult) error {
		results <- r
		return nil
	}
	client, err := scu.Dial(n.t.Context(), target, scu.ProposeCommitment())
	if err != nil {
		n.t.Fatal(err)
	}
	if err := client.RequestCommitment(n.t.Context(), request(transaction, all)); err != nil {
		n.t.Fatal(err)
	}
	var result *dimse.CommitmentResult
	select {
	case result = <-results:
	case <-time.After(most):
	}
	if err := client.Release(n.t.Context()); err != nil {
		n.t.Error(err)
	}
	if result != nil && result.Transaction != transaction {
		n.t.Errorf("the result is of transaction %s, want %s", result.Transaction, transaction)
	}
	return result
}

func request(transaction string, all []instance) *dimse.CommitmentRequest {
	r := &dimse.CommitmentRequest{Transaction: transaction}
	for _, in := range all {
		r.References = append(r.References, dimse.Reference{Class: in.class, Instance: in.sop})
	}
	return r
}

func TestStorageCommitmentOnTheSameAssociation(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 31, Patients: 4, PerSeries: 5})
	n.cstore(all)
	for i, where := range []string{"from staging", "from packs"} {
		if i == 1 {
			n.pack()
		}
		if r := n.commit("E2E", fmt.Sprint("1.2.3.", i), all...); len(r.Committed) != len(all) || len(r.Failed) != 0 {
			t.Errorf("%s: %d committed, %d failed, want %d and 0", where, len(r.Committed), len(r.Failed), len(all))
		}
	}
	other := all[0]
	other.class = dimsetest.MultiFrameGrayWord
	verification := all[1]
	verification.class = dimse.Verification
	r := n.commit("E2E", "1.2.3.9", other, verification, all[2])
	reasons := map[string]uint16{}
	for _, f := range r.Failed {
		reasons[f.Instance] = f.Reason
	}
	if len(r.Committed) != 1 || reasons[other.sop] != 0x0119 || reasons[verification.sop] != 0x0122 {
		t.Errorf("wrong classes: %+v", r)
	}
}

// A requestor that has gone gets its result over an association of our own, if
// it is registered, across a restart of the node too.
func TestStorageCommitmentResultFollowsLater(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 32, Patients: 2, PerSeries: 3})
	n.cstore(all)
	port := freePort(t) // where nobody listens yet
	n.register("LATER", port)
	client, err := scu.Dial(t.Context(), n.target("LATER"), scu.ProposeCommitment())
	if err != nil {
		t.Fatal(err)
	}
	if err := client.RequestCommitment(t.Context(), request("1.2.3.4", all)); err != nil {
		t.Fatal(err)
	}
	if err := client.Abort(); err != nil {
		t.Fatal(err)
	}
	n.kill() // the request was answered, so it is durable
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	d := serve(t, l)
	n.restart()
	select {
	case r := <-d.committed:
		if r.Transaction != "1.2.3.4" || len(r.Committed) != len(all) || len(r.Failed) != 0 {
			t.Errorf("result %+v", r)
		}
	case <-time.After(soon):
		t.Error("no result after the restart")
	}
}
