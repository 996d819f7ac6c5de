package member

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/gossip"
	"pelago/cluster/port"
	"pelago/replication/catalog/catalogtest"
)

func TestANodeJoinsByOneTokenAndIsKnownToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		w.vote(a.id())
		b := w.join("10.0.0.2", "Grace", a)
		w.until("both know both", func() bool { return a.registry.Belongs(b.id()) && b.registry.Belongs(a.id()) })
		if name := b.o.Membership.Name(); name != (authority.Name{Network: "north", Site: "Grace", Node: b.id()}) {
			t.Errorf("it is %+v", name)
		}
		if !a.o.Membership.Founder() || b.o.Membership.Founder() {
			t.Error("the founder is not the founder")
		}
		m, ok := a.registry.Member(b.id())
		if !ok || m.Address != b.place.Address || m.Founder || m.Site != "Grace" {
			t.Errorf("its record: %+v", m)
		}
		// The papers are there after a restart, and say who let it in.
		again, err := Open(b.fs, "keys", newSelf(t, b.fs))
		if err != nil || again.Name() != b.o.Membership.Name() || len(again.Hints) != 2 {
			t.Errorf("read again: %+v, %v", again, err)
		}
		for range 2 { // to the node that knows, and back
			answer, err := b.o.Peers.Do(t.Context(), a.id(), http.MethodGet, pathStanding, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			a, b = b, a
		}
	})
}

func TestWhoIsNotLetInIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		other := newWorld(t)
		other.net = w.net
		south := other.found("10.0.1.1", "South")
		token := func(m *member, lifetime time.Duration) authority.Token {
			token, _, err := m.Token(t.Context(), lifetime)
			if err != nil {
				t.Fatal(err)
			}
			return token
		}
		used := token(a, 0)
		b := w.host("10.0.0.2")
		if _, err := Join(t.Context(), b.fs, "keys", newSelf(t, b.fs), b.joining(a, used, "Grace")); err != nil {
			t.Fatal(err)
		}
		late := token(a, time.Minute)
		time.Sleep(time.Minute)
		unknown, _, err := authority.NewToken(a.o.Membership.Credentials.Root(), 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			change func(*Joining)
			kind   fault.Kind
			reason error
		}{
			"a used token":            {func(j *Joining) { j.Token = used.Text() }, fault.Conflict, authority.UsedToken},
			"an expired token":        {func(j *Joining) { j.Token = late.Text() }, fault.Denied, authority.ExpiredToken},
			"an unknown token":        {func(j *Joining) { j.Token = unknown.Text() }, fault.NotFound, authority.UnknownToken},
			"another network's token": {func(j *Joining) { j.Token = token(south, 0).Text() }, fault.Denied, nil},
			"no token":                {func(j *Joining) { j.Token = "" }, fault.Invalid, nil},
			"another network's name":  {func(j *Joining) { j.Network = "south" }, fault.Denied, nil},
			"an address nobody has":   {func(j *Joining) { j.Address = "10.0.0.99:7700" }, fault.Unavailable, nil},
			"a place nobody can dial": {func(j *Joining) { j.Place.Address = "10.0.0.3:0" }, fault.Invalid, nil},
			"a site that is no name":  {func(j *Joining) { j.Site = "a/b" }, fault.Invalid, nil},
		} {
			c3 := w.host("10.0.0.3")
			j := c3.joining(a, token(a, 0), "Hope")
			c.change(&j)
			_, err := Join(t.Context(), c3.fs, "keys", newSelf(t, c3.fs), j)
			if !fault.Is(err, c.kind) || c.reason != nil && !errors.Is(err, c.reason) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := Open(c3.fs, "keys", newSelf(t, c3.fs)); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: the refused node has papers: %v", name, err)
			}
			j = c3.joining(a, token(a, 0), "Hope")
			if _, err := Join(t.Context(), c3.fs, "keys", newSelf(t, c3.fs), j); err != nil {
				t.Errorf("%s: the next attempt: %v", name, err)
			}
		}
	})
}

func TestALostAnswerCostsNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		token, _, err := a.Token(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		b := w.host("10.0.0.2")
		self := newSelf(t, b.fs)
		var first string
		for try := range 3 {
			if try == 2 {
				b.place.Address = "10.0.0.9:7700" // it came back on another address
			}
			m, err := Join(t.Context(), b.fs, "keys", self, b.joining(a, token, "Grace"))
			if err != nil {
				t.Fatalf("try %d: %v", try, err)
			}
			first = m.Self.ID()
		}
		a.sees(w, first, "10.0.0.9:7700")
		if _, err := Join(t.Context(), b.fs, "keys", self, b.joining(a, token, "Hope")); !errors.Is(err, authority.OtherSite) {
			t.Errorf("at another site: %v", err)
		}
	})
}

func (m *member) sees(w *world, node, address string) {
	w.t.Helper()
	w.until("the address of "+node, func() bool {
		at, err := m.registry.Locate(w.t.Context(), node)
		return err == nil && at == address
	})
}

func TestARemovedNodeIsRefusedByAllAndLearnsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		w.vote(a.id())
		b := w.join("10.0.0.2", "Grace", a)
		c := w.join("10.0.0.3", "Hope", a)
		w.until("c is known", func() bool { return b.registry.Belongs(c.id()) && c.registry.Belongs(b.id()) })
		answer, err := c.o.Peers.Do(t.Context(), b.id(), http.MethodGet, pathStanding, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if err := c.Remove(t.Context(), c.id(), "ann"); !fault.Is(err, fault.Conflict) {
			t.Errorf("by itself: %v", err)
		}
		if err := a.Remove(t.Context(), "nobody", "ann"); !fault.Is(err, fault.NotFound) {
			t.Errorf("nobody: %v", err)
		}
		c.replica.freeze() // it does not hear of its removal
		for range 2 {      // the second time changes nothing
			if err := a.Remove(t.Context(), c.id(), "ann"); err != nil {
				t.Fatal(err)
			}
		}
		w.until("b refuses it", func() bool { return b.registry.Revoked(c.id()) && !slices.Contains(b.port.Peers(), c.id()) })
		if b.registry.Belongs(c.id()) {
			t.Error("it still belongs")
		}
		if _, err := b.port.Dial(t.Context(), c.id(), c.place.Address, port.Peer); !fault.Is(err, fault.Denied) {
			t.Errorf("b calls it: %v", err)
		}
		if _, err := b.registry.Locate(t.Context(), c.id()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("b locates it: %v", err)
		}
		w.until("it learns of it", c.Removed)
		if said := strings.Join(c.log.Take(), "\n"); !strings.Contains(said, "removed this node") {
			t.Errorf("its log:\n%s", said)
		}
		for _, m := range []*member{a, b} {
			if m.Removed() {
				t.Error("a node that stays believes that it was removed")
			}
		}
		token, _, err := a.Token(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Join(t.Context(), c.fs, "keys", c.o.Membership.Self, c.joining(a, token, "Hope")); !errors.Is(err, authority.Revoked) {
			t.Errorf("it comes back with a token: %v", err)
		}
		if err := a.Drain(t.Context(), c.id(), true); !fault.Is(err, fault.NotFound) {
			t.Errorf("drained: %v", err)
		}
	})
}

func TestAnyVotersSiteLetsNodesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		w.vote(a.id())
		b := w.join("10.0.0.2", "Grace", a)
		d := w.join("10.0.0.4", "Mercy", a) // of a site that has one already
		signs := func(m *member) bool {
			s, err := m.o.Membership.Signer()
			return err == nil && s != nil
		}
		w.until("b may sign", func() bool { return signs(b) })
		c := w.join("10.0.0.3", "Hope", d) // by a node that may not: it asks one that may
		if signs(d) {
			t.Error("a second node of a site may sign, which is no need")
		}
		w.until("c may sign", func() bool { return signs(c) })
		w.net.Part([]string{"10.0.0.1"}, []string{"10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"})
		e := w.join("10.0.0.5", "Peace", b) // although the founder is not there
		w.until("e is known", func() bool { return c.registry.Belongs(e.id()) })
		if signs(e) {
			t.Error("a fourth site may sign although it does not vote")
		}
		w.vote(a.id(), b.id(), e.id())
		w.until("e may sign, now that it votes", func() bool {
			time.Sleep(2 * keepEvery)
			return signs(e)
		})
	})
}

func TestCertificatesAreRenewedThroughAnyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.long = true
		a := w.found("10.0.0.1", "Mercy")
		w.vote(a.id())
		b := w.join("10.0.0.2", "Mercy", a)
		was := b.o.Membership.Credentials.Due()
		time.Sleep(authority.Lifetime*2/3 + 2*time.Hour)
		for _, m := range []*member{a, b} {
			if !m.o.Membership.Credentials.Due().After(was) {
				t.Errorf("%s: still due at %v", m.place.Address, was)
			}
			again, err := Open(m.fs, "keys", newSelf(t, m.fs))
			if err != nil || !again.Credentials.Due().After(was) {
				t.Errorf("%s: not durable: %v", m.place.Address, err)
			}
		}
	})
}

func TestTheNetworkKnowsWhereANodeIsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.still = true
		a := w.found("10.0.0.1", "Mercy")
		b := w.join("10.0.0.2", "Grace", a)
		w.until("it is known", func() bool { return a.registry.Belongs(b.id()) && b.registry.Known() })
		if err := b.moved("10.0.0.2:7701").keep(t.Context()); err != nil {
			t.Error(err)
		}
		a.sees(w, b.id(), "10.0.0.2:7701")
		a.heard.Store(&gossip.Member{Node: b.id(), Address: netip.MustParseAddrPort("10.0.0.2:7702")})
		if at, err := a.registry.Locate(t.Context(), b.id()); err != nil || at != "10.0.0.2:7702" {
			t.Errorf("although it was heard elsewhere: %s, %v", at, err)
		}
	})
}

func TestDecisionsThatCrossAreMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		b := w.join("10.0.0.2", "Grace", a)
		w.until("it is known", func() bool { return a.registry.Belongs(b.id()) })
		synctest.Wait()
		w.memory.Before(func() {
			if err := b.decisions.Make(t.Context(), func(s *Step) error {
				return b.amend(s, b.id(), func(m *Member) { m.Barred = true })
			}); err != nil {
				t.Error(err)
			}
		})
		if err := a.Drain(t.Context(), b.id(), true); err != nil {
			t.Fatal(err)
		}
		w.until("both hold", func() bool {
			m, _ := a.registry.Member(b.id())
			return m.Drained && m.Barred
		})
		if err := a.Drain(t.Context(), b.id(), false); err != nil {
			t.Fatal(err)
		}
		w.until("it is back", func() bool { m, _ := a.registry.Member(b.id()); return !m.Drained && m.Barred })
		w.memory.Down(true)
		if err := a.Drain(t.Context(), b.id(), true); !fault.Is(err, fault.Unavailable) {
			t.Errorf("without a majority: %v", err)
		}
		if _, _, err := a.Token(t.Context(), 0); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a token without a majority: %v", err)
		}
	})
}

func TestTicketsAreCollectedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		for range maxTickets {
			if _, _, err := a.Token(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := a.Token(t.Context(), 0); !errors.Is(err, authority.TooMany) || !fault.Is(err, fault.Full) {
			t.Errorf("one more: %v", err)
		}
		time.Sleep(time.Minute + authority.Tolerance + time.Second)
		if _, _, err := a.Token(t.Context(), 0); err != nil {
			t.Errorf("after the others have expired: %v", err)
		}
		left, err := w.memory.Registry(kindTicket)
		if err != nil || len(left) != maxTickets-maxCollected+1 {
			t.Errorf("%d tickets are left, %v", len(left), err)
		}
	})
}

func TestSignersAreVotersAndAtLeastThreeSites(t *testing.T) {
	all := []Member{
		{Node: "a1", Site: "A"}, {Node: "a2", Site: "A"}, {Node: "b1", Site: "B", Witness: true}, {Node: "c1", Site: "C"},
		{Node: "d1", Site: "D", Barred: true}, {Node: "e1", Site: "E", Drained: true}, {Node: "f1", Site: "F"}, {Node: "g1", Site: "G"},
	}
	for name, c := range map[string]struct {
		members          []Member
		voters, has, out []string
	}{
		"the founder alone":              {all[:1], []string{"a1"}, []string{"a1"}, nil},
		"a second node of the site":      {all[:2], []string{"a1"}, []string{"a1"}, nil},
		"a witness never":                {all[:3], []string{"a1", "b1"}, []string{"a1"}, nil},
		"a second site, without a vote":  {all[:4], []string{"a1"}, []string{"a1"}, []string{"c1"}},
		"up to three sites":              {all, []string{"a1"}, []string{"a1"}, []string{"c1", "f1"}},
		"voters beyond three":            {all, []string{"a1", "c1", "f1", "g1"}, []string{"a1"}, []string{"c1", "f1", "g1"}},
		"the voter of a site":            {all[:2], []string{"a2"}, []string{"a1"}, []string{"a2"}},
		"nobody who has it":              {all, []string{"a1", "c1"}, []string{"a1", "c1", "f1"}, nil},
		"a vote that moved to the other": {all, []string{"a2", "c1", "f1"}, []string{"c1", "f1"}, []string{"a2"}},
	} {
		got := chooseSigners(c.members, c.voters, func(node string) bool { return slices.Contains(c.has, node) })
		if !slices.Equal(got, c.out) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNodesAreListedWithWhatIsHeardOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.found("10.0.0.1", "Mercy")
		w.vote(a.id())
		b, c := w.join("10.0.0.2", "Grace", a), w.join("10.0.0.3", "Hope", a)
		a.heard.Store(&gossip.Member{Node: b.id(), Address: netip.MustParseAddrPort(b.place.Address), RTT: time.Second, Meta: gossip.Meta{Free: 7}})
		if err := b.Remove(t.Context(), c.id(), ""); err != nil {
			t.Fatal(err)
		}
		w.until("a knows", func() bool { return a.registry.Revoked(c.id()) })
		nodes := a.Nodes()
		if len(nodes) != 3 || nodes[0].Node != b.id() || nodes[1].Node != c.id() || nodes[2].Node != a.id() {
			t.Fatalf("%+v", nodes)
		}
		if n := nodes[0]; !n.Alive || n.Removed || n.Votes || n.RTT != time.Second || n.Heard.Free != 7 {
			t.Errorf("one that is heard: %+v", n)
		}
		if n := nodes[1]; n.Alive || !n.Removed || n.Signs {
			t.Errorf("one that was removed: %+v", n)
		}
		if n := nodes[2]; !n.Alive || !n.Self || !n.Votes || !n.Signs || !n.Founder {
			t.Errorf("itself: %+v", n)
		}
	})
}

func TestARecordOfAnotherNodesKeyIsNotTaken(t *testing.T) {
	self := newSelf(t, vfs.NewMem())
	m := Member{Node: self.ID(), Site: "Mercy", Public: self.Public(), Sealing: self.Sealing(), Proof: self.SealingProof(), Address: "10.0.0.1:7700", Witness: true}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseMember(self.ID(), b); err != nil || !got.equal(m) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseMember(newSelf(t, vfs.NewMem()).ID(), b); !fault.Is(err, fault.Corrupt) {
		t.Errorf("under another id: %v", err)
	}
	for name, broken := range map[string][]byte{"cut": b[:len(b)/2], "nothing": nil, "garbage": []byte("\xff\xff\xff")} {
		if _, err := parseMember(self.ID(), broken); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	memory := catalogtest.NewRegistry()
	memory.Put(kindMember, self.ID(), b)
	memory.Put(kindMember, "x", b)
	memory.Put(kindRevoked, self.ID(), []byte("garbage"))
	r, err := NewRegistry(RegistryOptions{Self: self.ID(), Catalog: memory, Log: discard()})
	if err != nil || !r.Known() || !r.Revoked(self.ID()) || r.Belongs("x") {
		t.Errorf("a revocation that does not parse counts for nothing: %v", err)
	}
	if _, err := parseTicket([]byte(`{"version":2}`)); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a newer ticket: %v", err)
	}
	if ticketName([ed25519.PublicKeySize]byte{0xab})[:4] != "ab00" {
		t.Error("a ticket's name is not its key")
	}
}

func TestFoundingMakesUpANameAndKeepsItsPapers(t *testing.T) {
	fs := vfs.NewMem()
	self := newSelf(t, fs)
	if _, err := Found(fs, "keys", self, "North", "Mercy", authority.Place{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a name in upper case: %v", err)
	}
	m, err := Found(fs, "keys", self, "", "Mercy", authority.Place{})
	if err != nil || !strings.HasPrefix(m.Name().Network, "pelago-") || len(m.Name().Network) != 13 || !m.Founder() {
		t.Fatalf("%+v, %v", m, err)
	}
	if self.Current() != 1 {
		t.Errorf("it founds with the epochs %v", self.Epochs())
	}
	again, err := Open(fs, "keys", self)
	if err != nil || again.Name() != m.Name() {
		t.Errorf("%v", err)
	}
	other := vfs.NewMem()
	witness := newSelf(t, other)
	if _, err := Found(other, "keys", witness, "", "Mercy", authority.Place{Witness: true}); err != nil || witness.Current() != 0 {
		t.Errorf("a witness founds with the epochs %v, %v", witness.Epochs(), err)
	}
	// Its first epoch is not that of any network that it could join.
	if _, err := Join(t.Context(), fs, "keys", self, Joining{Token: tokenOf(t, again)}); !fault.Is(err, fault.Conflict) {
		t.Errorf("it joins another network with its own epoch: %v", err)
	}
	if s, err := again.Signer(); err != nil || s == nil {
		t.Errorf("it may not sign: %v", err)
	}
	if err := again.MaySign(make([]byte, 80)); !fault.Is(err, fault.Corrupt) {
		t.Errorf("a key that does not open: %v", err)
	}
}

// tokenOf is a join token of a network.
func tokenOf(t *testing.T, m *Membership) string {
	t.Helper()
	token, _, err := authority.NewToken(m.Credentials.Root(), 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token.Text()
}

func TestANodeThatNobodyFindsHasAnotherSayWhereItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.still = true
		a := w.found("10.0.0.1", "Mercy")
		b := w.join("10.0.0.2", "Grace", a)
		w.until("it is known", func() bool { return a.registry.Belongs(b.id()) && b.registry.Known() })
		// It is heard of where it was.
		a.heard.Store(&gossip.Member{Node: b.id(), Address: netip.MustParseAddrPort("10.0.0.2:7700")})
		b.lost.Store(true)
		if err := b.moved("10.0.0.2:7701").keep(t.Context()); err != nil {
			t.Error(err)
		}
		a.sees(w, b.id(), "10.0.0.2:7701")
		// What is heard later is newer again.
		a.heard.Store(&gossip.Member{Node: b.id(), Address: netip.MustParseAddrPort("10.0.0.2:7702")})
		a.sees(w, b.id(), "10.0.0.2:7702")
		for name, address := range map[string]string{"nothing": "", "no port": "10.0.0.2", "too long": strings.Repeat("a", 300) + ":1"} {
			if _, err := b.o.Peers.Do(t.Context(), a.id(), http.MethodPost, pathAddress, strings.NewReader(address)); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
