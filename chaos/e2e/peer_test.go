package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/cluster/port/porttest"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
	"pelago/replication/catalog/catalogtest"
)

// falseStudy is a study that nobody has.
func falseStudy(node, site string, asOf uint64) *catalog.SeriesFact {
	f := catalogtest.Make(666, asOf).Fact(asOf)
	f.Origin, f.Site = node, site
	return f
}

// batch encodes a batch of false studies, in a node's name, signed by the spy.
func (s *spy) batch(node, site string, incarnation, number uint64, previous [32]byte) []byte {
	s.t.Helper()
	entry, _, err := catalog.EncodeBatch(s.self, catalog.Batch{
		Node: node, Site: site, Incarnation: incarnation, Number: number,
		Facts: []*catalog.SeriesFact{falseStudy(node, site, 1000+number)},
	}, previous)
	if err != nil {
		s.t.Fatal(err)
	}
	return entry
}

// marshal encodes an entry that no node would make.
func marshal(t *testing.T, e *catalogpb.Entry) []byte {
	t.Helper()
	b, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A member that lies is believed nothing that is not its own to say, and nobody
// else is disturbed by it; once it is removed it gets nowhere.
func TestAMemberThatLies(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	s := enlist(t, a)
	first := world(dimsetest.World{Seed: 71, Patients: 2, PerSeries: 3})
	a.cstore(first)
	until(t, "the spy knows what everybody knows", func() bool {
		return s.catalog.Totals().Studies == studiesOf(first) && b.studies() == studiesOf(first)
	})
	victim, self := a.id(), s.self.ID()
	s.lie(t, victim, self)
	for _, n := range []*node{a, b} {
		if r := n.status(); r.Studies != studiesOf(first) || r.RejectedFacts != 0 || r.Instances != uint64(len(first)) {
			t.Errorf("%s knows %d studies, %d instances, %d rejected", r.Site, r.Studies, r.Instances, r.RejectedFacts)
		}
	}
	s.disturb(t, a, b)
	second := s.others(t, a, b, first)
	s.removed(t, a, b)
	for _, n := range []*node{a, b} {
		n.quiet(t, slices.Concat(first, second))
		n.healthy()
		n.verifyClean()
	}
}

// lie proposes what the network must not believe.
func (s *spy) lie(t *testing.T, victim, self string) {
	cursor, known, err := s.catalog.Cursor(victim)
	if err != nil || !known {
		t.Fatalf("cursor: %v, %v", known, err)
	}
	genuine := s.catalog.batches(victim)
	if len(genuine) == 0 {
		t.Fatal("no batch of the victim was overheard")
	}
	last := genuine[len(genuine)-1]
	altered := slices.Clone(last)
	altered[len(altered)/2] ^= 1
	decision := func(signedBy catalog.Signer, node string, c ...catalog.Command) []byte {
		entry, err := catalog.EncodeDecision(signedBy, node, nil, c)
		if err != nil {
			t.Fatal(err)
		}
		return entry
	}
	revoke := &catalog.RegistryFact{Kind: catalog.KindRevoked, Name: victim, Value: []byte("{}")}
	for _, lie := range []struct {
		name  string
		entry []byte
		want  []fault.Kind
	}{
		{"another's journal, forged", s.batch(victim, "Mercy", cursor.Incarnation, cursor.Number+1, cursor.Hash), []fault.Kind{fault.Denied}},
		{"another's journal, forged in a new incarnation", s.batch(victim, "Mercy", cursor.Incarnation+1, 1, [32]byte{}), []fault.Kind{fault.Denied}},
		{"another's journal, replayed", last, []fault.Kind{fault.Denied}},
		{"another's journal, altered", altered, []fault.Kind{fault.Denied, fault.Invalid}},
		{"another's decision, forged", decision(s.self, victim, revoke), []fault.Kind{fault.Denied}},
		{"its own journal, with a gap", s.batch(self, "Spy", 1, 5, [32]byte{5}), []fault.Kind{fault.Mismatch}},
		{"its own journal, behind nothing", s.batch(self, "Spy", 1, 2, [32]byte{9}), []fault.Kind{fault.Mismatch}},
		{"its own journal, of another's site", s.batch(self, "Mercy", 1, 1, [32]byte{}), []fault.Kind{fault.Denied, fault.Invalid}},
		{"garbage", []byte("\x00\xff garbage, and SECRET^NAME"), []fault.Kind{fault.Invalid}},
		{"an entry of a version to come", marshal(t, &catalogpb.Entry{Version: 99, MinReader: 99}), []fault.Kind{fault.Unsupported}},
		{"an empty entry", marshal(t, &catalogpb.Entry{Version: 2, MinReader: 2}), []fault.Kind{fault.Invalid}},
		{"half an entry", last[:len(last)/2], []fault.Kind{fault.Invalid}},
	} {
		err := s.propose(lie.entry)
		if err == nil || !slices.Contains(lie.want, fault.KindOf(err)) {
			t.Errorf("%s: %v, want %v", lie.name, err, lie.want)
		}
		if now, _, err := s.catalog.Cursor(victim); err != nil || now != cursor {
			t.Fatalf("%s: the victim's journal stands at %+v, was at %+v: %v", lie.name, now, cursor, err)
		}
	}
}

// disturb asks nodes for what no node asks.
func (s *spy) disturb(t *testing.T, nodes ...*node) {
	t.Helper()
	noise := make([]byte, 1<<20)
	chance := rand.New(rand.NewPCG(1, 1))
	for i := range noise {
		noise[i] = byte(chance.Uint32())
	}
	for _, n := range nodes {
		id := n.id()
		for _, path := range []string{
			"/raft/propose?generation=1", "/archive/open", "/archive/move", "/query/find", "/query/locate", "/node/address",
		} {
			if err := s.ask(id, http.MethodPost, path, bytes.NewReader(noise)); err == nil {
				t.Errorf("POST %s with noise was answered", path)
			}
		}
		// Who lets nodes in says no within the join protocol.
		_ = s.ask(id, http.MethodPost, "/node/office", bytes.NewReader(noise))
		for _, path := range []string{
			"/raft/checkpoint/../../keys/node", "/raft/checkpoint/x/..%2f..%2fkeys", "/raft/entries?generation=1&first=0&last=18446744073709551615",
			"/raft/hash?generation=1&index=x", "/archive/pack/..%2f..%2fkeys", "/archive/pack/0", "/archive/staged/0", "/api/status", "/dicom-web/studies", "/debug/pprof/heap",
		} {
			if err := s.ask(id, http.MethodGet, path, nil); err == nil {
				t.Errorf("GET %s was answered", path)
			}
		}
		address, err := s.lookup.Locate(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, service := range []port.Service{port.Raft, port.Gossip, port.Peer} {
			conn, err := s.port.Dial(t.Context(), id, address, service)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
			_, _ = conn.Write(noise) // it may be cut off while it speaks
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}
	}
}

// others checks that nobody else noticed anything.
func (s *spy) others(t *testing.T, a, b *node, before []instance) (stored []instance) {
	t.Helper()
	atA, atB := world(dimsetest.World{Seed: 72, Patients: 1, PerSeries: 2}), world(dimsetest.World{Seed: 73, Patients: 1, PerSeries: 2})
	a.cstore(atA)
	b.cstore(atB)
	stored = slices.Concat(atA, atB)
	all := slices.Concat(before, stored)
	for _, n := range []*node{a, b} {
		until(t, "everything is known", func() bool {
			is := n.status()
			return is.Instances == uint64(len(all)) && is.Studies == studiesOf(all) && is.PendingJournal == 0
		})
		n.cget(all).same(t, "C-GET beside a spy", all)
	}
	until(t, "the states are the same", func() bool { return a.status().StateHash == b.status().StateHash })
	return stored
}

// removed removes the spy, which then gets nowhere.
func (s *spy) removed(t *testing.T, a, b *node) {
	t.Helper()
	id := s.self.ID()
	a.cli(0, "remove", "--data", a.Data(), id)
	for _, n := range []*node{a, b} {
		until(t, "it is removed", func() bool { return string(n.members()[id].State) == "removed" })
		other := n.id()
		for what, err := range map[string]error{
			"a call": s.ask(other, http.MethodGet, "/node/members", nil), "an entry": s.ask(other, http.MethodPost, "/raft/propose?generation=1", strings.NewReader("x")),
		} {
			if err == nil {
				t.Errorf("%s of a removed node was answered", what)
			}
		}
		for _, service := range []port.Service{port.Raft, port.Gossip, port.Peer} {
			if s.reaches(t, n.Peer(), other, service) {
				t.Errorf("a removed node still reaches %s", service)
			}
		}
	}
	if got, err := a.Command(t.Context(), "sites", "--data", a.Data()); err != nil || got.Code != 0 {
		t.Errorf("sites: %+v, %v", got, err)
	}
}

// reaches reports whether a node takes a connection and keeps it.
func (s *spy) reaches(t *testing.T, address, node string, service port.Service) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	conn, err := s.port.Dial(ctx, node, address, service)
	if err != nil {
		return false
	}
	return kept(conn)
}

// kept reports whether the other side lets a connection stand. In TLS 1.3 a
// client hears of its refusal only then.
func kept(conn *tls.Conn) bool {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(soon)) // who is refused hears of it, on a slow machine later
	_, err := conn.Read(make([]byte, 1))
	timeout, ok := err.(interface{ Timeout() bool }) //nolint:errorlint // of the connection itself
	return err == nil || ok && timeout.Timeout()
}

// Certificates of other networks are none, whatever the networks are called.
func TestACertificateOfAnotherNetworkIsNone(t *testing.T) {
	a := start(t, at("Mercy"))
	authorities, err := authority.Found(a.status().Network, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	self, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	creds := porttest.Credentials(t, authorities, self, "Mercy")
	p := port.New(port.Config{Credentials: creds, Revoked: func(string) bool { return false }, Log: slog.New(slog.DiscardHandler)})
	if conn, err := p.Dial(t.Context(), a.id(), a.Peer(), port.Peer); !fault.Is(err, fault.Denied) {
		t.Errorf("it takes the node for one of its network: %v, %v", conn, err)
	}
	for _, service := range []port.Service{port.Raft, port.Gossip, port.Peer} {
		conn, err := tls.Dial("tcp", a.Peer(), &tls.Config{ //nolint:gosec // a stranger does not care who answers
			InsecureSkipVerify: true, NextProtos: []string{string(service)}, Certificates: []tls.Certificate{*creds.Certificate()},
		})
		if err == nil && kept(conn) {
			t.Errorf("%s with a certificate of another network: it was not refused", service)
		}
	}
	a.healthy()
}

// quiet checks that the log names no patient.
func (n *node) quiet(t *testing.T, stored []instance) {
	t.Helper()
	log := n.Log()
	secrets := []string{"SECRET", falseStudy("n", "s", 1001).Study}
	for _, i := range []uint64{1000, 1001, 1002, 1005, 1006} {
		secrets = append(secrets, catalogtest.Make(666, i).PatientID, catalogtest.Make(666, i).Name)
	}
	for _, in := range stored {
		syntax, _ := dict.Syntax(in.syntax)
		h, err := dicom.ReadHeader(bytes.NewReader(in.data), syntax, dicom.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, h.Dataset.String(dict.PatientName), h.Dataset.String(dict.PatientID))
	}
	for _, secret := range secrets {
		if secret == "" {
			t.Fatal("a patient without a name")
		}
		if strings.Contains(log, secret) {
			t.Errorf("the log names a patient, or a study that is none: %s", secret)
		}
	}
}
