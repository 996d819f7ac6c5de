package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
)

// three starts a network of three sites, all of which vote.
func three(t *testing.T) (a, b, c *node) {
	t.Helper()
	a = start(t, at("Mercy"))
	b = start(t, joining("Grace", a, a.token()))
	c = start(t, joining("Hope", a, a.token()))
	until(t, "three sites vote", func() bool { return a.voters() == 3 && b.voters() == 3 && c.voters() == 3 })
	return a, b, c
}

// voters is how many nodes vote, as one sees it.
func (n *node) voters() (voters int) {
	n.t.Helper()
	for _, m := range n.members() {
		if m.Voter {
			voters++
		}
	}
	return voters
}

// again starts nodes that were stopped where the others know them to be.
func again(t *testing.T, all ...*node) {
	t.Helper()
	for _, n := range all {
		was := n.Peer()
		n.Change(func(o *proc.Options) { o.Peer, o.Args = was, nil })
		n.restart()
	}
}

func TestARestoredVoterComesBackByItself(t *testing.T) {
	a, b, c := three(t)
	id := c.id()
	before, after := world(dimsetest.World{Seed: 71, Patients: 2}), world(dimsetest.World{Seed: 72, Patients: 2})
	c.cstore(before)
	backup, data := filepath.Join(t.TempDir(), "backup"), filepath.Join(t.TempDir(), "restored")
	c.cli(0, "backup", backup, "--data", c.Data())
	a.cstore(after)
	all := studiesOf(before) + studiesOf(after)
	until(t, "all studies are known", func() bool { return b.studies() == all && c.studies() == all })
	c.kill()
	c.cli(0, "restore", backup, "--data", data)
	r := start(t, at("Hope"), func(o *proc.Options) { o.Data = data })
	if r.id() != id || !strings.Contains(r.Log(), "raft log lost") {
		t.Errorf("it is %s, and was %s; it said\n%s", r.id(), id, tail(r.Log(), 20))
	}
	until(t, "it has what came after the backup", func() bool { return r.studies() == all })
	until(t, "it is back, and votes again", func() bool {
		return strings.Contains(r.Log(), "this node is back") && a.members()[id].Voter && r.members()[id].Voter
	})
	more := world(dimsetest.World{Seed: 73, Patients: 1})
	r.cstore(more)
	until(t, "what it takes in is known elsewhere", func() bool { return b.studies() == all+studiesOf(more) })
	r.cget(before).same(t, "C-GET from the restored node", before)
	r.verifyClean()
	// Two of three go on, it being one of them.
	a.kill()
	last := world(dimsetest.World{Seed: 74, Patients: 1})
	b.cstore(last)
	until(t, "the two agree", func() bool { return r.studies() == all+studiesOf(more)+studiesOf(last) })
}

func TestARecoveredSurvivorTakesTheOthersAlong(t *testing.T) {
	a, b, c := three(t)
	early := world(dimsetest.World{Seed: 75, Patients: 3})
	for i, n := range []*node{a, b, c} {
		n.cstore(world(dimsetest.World{Seed: uint64(76 + i), Patients: 1}))
	}
	a.cstore(early)
	until(t, "all studies are known", func() bool {
		return a.studies() == b.studies() && b.studies() == c.studies() && c.studies() == studiesOf(early)+3
	})
	known, gone := b.studies(), a.id()
	r := b.cli(1, "recover", "--data", b.Data(), "--yes")
	if !strings.Contains(r.Stderr, "in use by another process") {
		t.Errorf("while the node runs it said\n%s", r.Stderr)
	}
	a.kill() // for good
	b.stop()
	// What this one takes in without a majority is in its journal only.
	alone := world(dimsetest.World{Seed: 79, Patients: 2})
	c.cstore(alone)
	c.kill()

	type survivor struct {
		Generation uint64
		Voters     []string
		Recovered  bool
		Last       uint64 `json:"last_index"`
		Applied    uint64 `json:"applied_index"`
	}
	var was, is, now survivor
	b.cliJSON(0, &was, "recover", "--dry-run", "--json", "--data", b.Data())
	r = b.cli(2, "recover", "--data", b.Data())
	if !strings.Contains(r.Stdout, "Grace") || !strings.Contains(r.Stderr, "only voter") || !strings.Contains(r.Stderr, "--yes") {
		t.Errorf("it said\n%s%s", r.Stdout, r.Stderr)
	}
	b.cliJSON(0, &is, "recover", "--dry-run", "--json", "--data", b.Data())
	if len(was.Voters) != 3 || was.Last == 0 || was.Applied == 0 || is.Recovered || is.Last != was.Last || is.Generation != 0 {
		t.Errorf("it was %+v, and is %+v", was, is)
	}
	b.cliJSON(0, &now, "recover", "--yes", "--json", "--data", b.Data())
	if len(now.Voters) != 1 || now.Generation != 1 || !now.Recovered || now.Last <= was.Last {
		t.Errorf("recovered: %+v", now)
	}
	again(t, b)
	later := world(dimsetest.World{Seed: 80, Patients: 1})
	b.cstore(later)
	known += studiesOf(later)
	until(t, "the survivor goes on alone", func() bool { return b.studies() == known })
	again(t, c)
	known += studiesOf(alone)
	until(t, "the other one has come along, with what it took in alone", func() bool { return b.studies() == known && c.studies() == known })
	if !strings.Contains(c.Log(), "catalogue copied") {
		t.Errorf("it did not copy:\n%s", tail(c.Log(), 20))
	}
	b.cli(0, "remove", gone, "--data", b.Data())
	until(t, "who is gone is removed", func() bool { return c.members()[gone].State == "removed" })
	c.token() // of a network that decides
	for _, n := range []*node{b, c} {
		n.verifyClean()
	}
}

func TestTheAuthorityIsExported(t *testing.T) {
	n := start(t)
	file := filepath.Join(t.TempDir(), "ca.pem")
	n.cli(0, "backup", "--ca", file, "--data", n.Data())
	n.cli(1, "backup", "--ca", file, "--data", n.Data()) // it is not overwritten
	n.cli(2, "backup", "--data", n.Data())
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	root, rest := pem.Decode(text)
	key, rest := pem.Decode(rest)
	if root == nil || key == nil || len(bytes.TrimSpace(rest)) != 0 {
		t.Fatalf("it holds\n%s", text)
	}
	cert, err := x509.ParseCertificate(root.Bytes)
	if err != nil || !cert.IsCA || len(key.Bytes) != 80 || key.Headers["Node"] != n.id() {
		t.Errorf("%v, %v: %v", cert, err, key.Headers)
	}
	var status struct{ Network string }
	r := n.cli(0, "status", "--json", "--data", n.Data())
	if json.Unmarshal([]byte(r.Stdout), &status) != nil || cert.Subject.CommonName != status.Network {
		t.Errorf("the certificate is of %s, the node of %s", cert.Subject.CommonName, status.Network)
	}
}
