package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
	"pelago/node/admin"
)

// soon is how long nodes may take to agree: elections take seconds, and the
// machine may be busy. It only bounds how long a test takes to fail.
const soon = 2 * time.Minute

// until waits for something that comes about soon.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

// token opens a join token.
func (n *node) token(args ...string) string {
	n.t.Helper()
	r, err := n.Command(n.t.Context(), append([]string{"token", "--data", n.Data()}, args...)...)
	if err != nil || r.Code != 0 {
		n.t.Fatalf("token: %+v, %v", r, err)
	}
	lines := strings.Split(strings.TrimSpace(r.Stdout), "\n")
	return lines[len(lines)-1]
}

// joining are the options of a node that joins by way of another.
func joining(site string, by *node, token string) func(*proc.Options) {
	return func(o *proc.Options) {
		o.Site = site
		o.Args = append(o.Args, "--join", by.Peer())
		o.Env = append(o.Env, "PELAGO_PEER_TOKEN="+token)
	}
}

// at sets a node's site.
func at(site string) func(*proc.Options) { return func(o *proc.Options) { o.Site = site } }

// members are the nodes as a node lists them, by id.
func (n *node) members() map[string]admin.Node {
	n.t.Helper()
	var sites []admin.Site
	n.call("GET", "/api/sites", nil, &sites)
	all := map[string]admin.Node{}
	for _, s := range sites {
		for _, m := range s.Nodes {
			all[m.ID] = m
		}
	}
	return all
}

// id is the node's id.
func (n *node) id() string {
	n.t.Helper()
	for id, m := range n.members() {
		if m.Self {
			return id
		}
	}
	n.t.Fatal("the node does not list itself")
	return ""
}

// sees waits until a node lists others in a state.
func (n *node) sees(state string, others ...*node) {
	n.t.Helper()
	for _, o := range others {
		id := o.id()
		until(n.t.(*testing.T), id+" is "+state, func() bool { return string(n.members()[id].State) == state })
	}
}

// studies is how many studies the node knows of.
func (n *node) studies() uint64 {
	n.t.Helper()
	var s admin.Status
	n.call("GET", "/api/status", nil, &s)
	return s.Studies
}

// studiesOf is how many studies instances are of.
func studiesOf(all []instance) uint64 {
	studies := map[string]bool{}
	for _, i := range all {
		studies[i.study] = true
	}
	return uint64(len(studies))
}

func TestASiteJoinsWithOneCommandAndStaysAMember(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	for _, n := range []*node{a, b} {
		n.sees("alive", a, b)
	}
	var status [2]admin.Status
	a.call("GET", "/api/status", nil, &status[0])
	b.call("GET", "/api/status", nil, &status[1])
	if status[0].Network != status[1].Network || status[0].Network == "" || status[1].Site != "Grace" || len(status[1].Sites) != 2 {
		t.Errorf("%+v\n%+v", status[0], status[1])
	}
	mercy, grace := world(dimsetest.World{Seed: 61, Patients: 2}), world(dimsetest.World{Seed: 62, Patients: 3})
	a.cstore(mercy)
	b.cstore(grace)
	known := func(n *node, studies uint64) func() bool { return func() bool { return n.studies() == studies } }
	all := studiesOf(mercy) + studiesOf(grace)
	until(t, "all studies are known at Mercy", known(a, all))
	until(t, "all studies are known at Grace", known(b, all))
	for _, n := range []*node{a, b} { // what Mercy has not packed yet, too
		if p := n.protection(mercy[0].study); len(p.Packs) == 0 || p.Packs[0].Shards[0].Site != "Mercy" && p.State != "protected" {
			t.Errorf("how a study of Mercy's rests: %+v", p)
		}
	}

	// Again without being told to join, on another port each, one after the other.
	for _, n := range []*node{b, a} {
		n.stop()
		n.Change(func(o *proc.Options) { o.Args = nil })
		was := n.Peer()
		n.restart()
		if n.Peer() == was {
			t.Errorf("the port is the same: %s", was)
		}
		for _, m := range []*node{a, b} {
			m.sees("alive", a, b)
		}
	}
	more := world(dimsetest.World{Seed: 63, Patients: 1})
	b.cstore(more)
	until(t, "a study of after the restarts is known at Mercy", known(a, all+studiesOf(more)))
	for _, n := range []*node{a, b} {
		until(t, "the addresses are recorded", func() bool {
			m := n.members()
			return m[a.id()].Address == a.Peer() && m[b.id()].Address == b.Peer()
		})
	}
	// Who has stored at one site may insist on reading it at the other.
	for i := range 5 {
		last := world(dimsetest.World{Seed: uint64(630 + i), Patients: 1})
		b.cstore(last)
		all += studiesOf(last)
		got, err := a.find(t.Context(), "Pelago-After", b.id())
		if want := int(all + studiesOf(more)); err != nil || got.studies != want {
			t.Errorf("after what Grace has acknowledged Mercy lists %d studies, want %d: %v", got.studies, want, err)
		}
	}
	a.verifyClean()
	b.verifyClean()
}

func TestWhoIsNotLetInIsToldWhyAndMayTryAgain(t *testing.T) {
	a := start(t, at("Mercy"))
	other := start(t, at("South"))
	used, late := a.token(), a.token("--ttl", "1s")
	b := start(t, joining("Grace", a, used))
	b.sees("alive", a)
	good := a.token()
	torn := strings.Replace(good, good[40:42], "", 1)
	time.Sleep(2 * time.Second) // longer than the token lasts: clocks outside a bubble
	for name, c := range map[string]struct{ token, reason string }{
		"no token at all":         {"xyz", "begins with"},
		"a torn token":            {torn, "torn"},
		"a used token":            {used, "used by another node"},
		"an expired token":        {late, "has expired"},
		"another network's token": {other.token(), "not the network"},
	} {
		dir := t.TempDir()
		options := func(token string) proc.Options {
			o := proc.Options{Binary: pelagoBinary, Dir: dir, Env: []string{"PELAGO_STORE_AHEAD=0"}}
			joining("Hope", a, token)(&o)
			return o
		}
		said := refused(t, options(c.token))
		if !strings.Contains(said, c.reason) || strings.Contains(said, c.token) && len(c.token) > 10 {
			t.Errorf("%s: it said:\n%s", name, said)
		}
		if name != "a used token" {
			continue
		}
		// What is left of the refused start is no obstacle to the next.
		n := start(t, func(o *proc.Options) { o.Dir = dir; joining("Hope", a, good)(o) })
		n.sees("alive", a)
	}
	var ended *proc.Ended
	dir := t.TempDir()
	o := proc.Options{Binary: pelagoBinary, Dir: dir}
	joining("Hope", a, used)(&o)
	if _, err := proc.Start(t.Context(), o); !errors.As(err, &ended) || ended.Code != 1 {
		t.Errorf("a used token: %v", err)
	}
}

func TestAMemberIsToldToJoinInVain(t *testing.T) {
	a, other := start(t, at("Mercy")), start(t, at("South"))
	b := start(t, joining("Grace", a, a.token()))
	was := b.id()
	b.stop()
	b.restart() // with the same arguments and the same token, which is used
	if b.id() != was || !strings.Contains(b.Log(), "member already") {
		t.Errorf("again: it said\n%s", b.Log())
	}
	b.sees("alive", a)
	b.stop()
	o := proc.Options{Dir: t.TempDir(), Data: b.Data()}
	joining("Grace", other, other.token())(&o)
	if said := refused(t, o); !strings.Contains(said, "belongs to network") {
		t.Errorf("another network: it said\n%s", said)
	}
	b.restart()
	b.sees("alive", a)
}

func TestTheThirdSiteJoinsBySecondAndTheFounderMayBeLost(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	c := start(t, joining("Hope", b, b.token()))
	all := []*node{a, b, c}
	for _, n := range all {
		n.sees("alive", all...)
	}
	until(t, "three sites vote and sign", func() bool {
		votes := 0
		for _, m := range c.members() {
			if m.Voter && m.Signs {
				votes++
			}
		}
		return votes == 3
	})
	a.kill()
	// A node of the remaining two opens a token and lets a fourth site in.
	var token string
	until(t, "a token without the founder", func() bool {
		r, err := c.Command(t.Context(), "token", "--data", c.Data())
		token = strings.TrimSpace(r.Stdout)
		return err == nil && r.Code == 0
	})
	d := start(t, joining("Peace", c, token))
	d.sees("alive", b, c)
	grace := world(dimsetest.World{Seed: 64, Patients: 2})
	b.cstore(grace)
	until(t, "a study is known at the fourth site", func() bool { return d.studies() == studiesOf(grace) })
	missing := func(want ...string) func() bool {
		return func() bool {
			answer, err := d.find(t.Context())
			return err == nil && slices.Equal(answer.unheard, want)
		}
	}
	until(t, "answers name the site that is away", missing("Mercy"))
	a.restart()
	for _, n := range []*node{a, b, c, d} {
		n.sees("alive", a, b, c, d)
	}
	until(t, "the founder catches up", func() bool { return a.studies() == studiesOf(grace) })
	until(t, "answers name nobody", missing())
}

func TestARemovedNodeIsRefusedAndServesOnWhatItHolds(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	c := start(t, joining("Hope", a, a.token()))
	for _, n := range []*node{a, b, c} {
		n.sees("alive", a, b, c)
	}
	before := world(dimsetest.World{Seed: 65, Patients: 2})
	c.cstore(before)
	until(t, "its studies are known", func() bool { return a.studies() == studiesOf(before) })
	id := c.id()
	for _, slip := range []string{"", id[:3], "zzzz"} {
		if r, err := a.Command(t.Context(), "remove", "--data", a.Data(), slip); err != nil || r.Code == 0 {
			t.Errorf("remove %q: %+v, %v", slip, r, err)
		}
	}
	if r, err := c.Command(t.Context(), "remove", "--data", c.Data(), id); err != nil || r.Code == 0 {
		t.Errorf("it removes itself: %+v, %v", r, err)
	}
	if r, err := a.Command(t.Context(), "drain", "--data", a.Data(), id); err != nil || r.Code != 0 {
		t.Fatalf("drain: %+v, %v", r, err)
	}
	b.sees("drained", c)
	if r, err := a.Command(t.Context(), "drain", "--undo", "--data", a.Data(), id); err != nil || r.Code != 0 {
		t.Fatalf("drain --undo: %+v, %v", r, err)
	}
	c.sees("alive", c)
	if r, err := a.Command(t.Context(), "remove", "--data", a.Data(), id[:8]); err != nil || r.Code != 0 {
		t.Fatalf("remove: %+v, %v", r, err)
	}
	for _, n := range []*node{a, b} {
		until(t, "it is removed", func() bool { return n.members()[id].State == "removed" })
	}
	until(t, "it learns of it", func() bool { return strings.Contains(c.Log(), "removed this node") })
	after := world(dimsetest.World{Seed: 66, Patients: 1})
	c.cstore(after)
	c.cget(before).same(t, "C-GET from the removed node", before)
	c.cget(after).same(t, "C-GET of what it took in since", after)
	c.stop()
	c.restart()
	c.cget(after).same(t, "C-GET after a restart", after)
	if got := a.studies(); got != studiesOf(before) {
		t.Errorf("the network knows %d studies, a removed node's among them", got)
	}
	// It comes back by no token.
	token := a.token()
	c.stop()
	o := proc.Options{Dir: t.TempDir(), Data: c.Data()}
	joining("Hope", a, token)(&o)
	c.Change(func(old *proc.Options) { old.Args, old.Env = o.Args, append(old.Env, o.Env...) })
	c.restart()
	until(t, "it is still removed", func() bool { return a.members()[id].State == "removed" })
	if r, err := a.Command(t.Context(), "sites", "--data", a.Data()); err != nil || !strings.Contains(r.Stdout, "removed") || !strings.Contains(r.Stdout, "Grace") {
		t.Errorf("sites: %+v, %v", r, err)
	}
	r, err := a.Command(t.Context(), "sites", "--json", "--data", a.Data())
	var sites []admin.Site
	if err != nil || json.Unmarshal([]byte(r.Stdout), &sites) != nil || len(sites) != 3 {
		t.Errorf("sites --json: %+v, %v", r, err)
	}
}

func TestAWitnessVotesAndKeepsNoImages(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	w := start(t, joining("Tower", b, b.token()), func(o *proc.Options) { o.Args = append(o.Args, "--witness") })
	id := w.id()
	until(t, "it votes", func() bool { return a.members()[id].Voter && b.members()[id].Voter })
	for _, n := range []*node{a, b, w} {
		if m := n.members()[id]; !m.Witness || m.Signs {
			t.Errorf("%+v", m)
		}
	}
	const why = "this node is a witness: it votes, and keeps no images"
	all := world(dimsetest.World{Seed: 67, Patients: 2})
	a.cstore(all)
	until(t, "the witness knows the studies", func() bool { return w.studies() == studiesOf(all) })
	w.refuses(all[0], why)
	if found := w.qido("/dicom-web/studies", "0020000D"); uint64(len(found)) != studiesOf(all) {
		t.Errorf("the witness finds %d studies", len(found))
	}
	if got := w.qido("/dicom-web/studies?StudyInstanceUID="+all[0].study, "00080056"); len(got) != 1 || got[0] != "UNAVAILABLE" {
		t.Errorf("availability at the witness: %q", got)
	}
	answer := w.do(http.MethodGet, "/dicom-web/studies/"+all[0].study, nil, http.Header{"Accept": {asStored}})
	if text := string(readAll(t, answer)); answer.StatusCode != http.StatusServiceUnavailable || text != why+"\n" {
		t.Errorf("a retrieve at the witness: %d %q", answer.StatusCode, text)
	}
	status := func() (s admin.Status) {
		w.call(http.MethodGet, "/api/status", nil, &s)
		return s
	}
	if s := status(); s.Refuses != why || s.Studies != studiesOf(all) || s.HotBytes+s.CachedBytes+s.BulkBytes != 0 {
		t.Errorf("the witness's status: %+v", s)
	}
	r, err := w.Command(t.Context(), "status", "--data", w.Data())
	if err != nil || r.Code != 0 || !strings.Contains(r.Stdout, why) || !strings.Contains(r.Stdout, "this,voter,witness") {
		t.Errorf("%+v, %v", r, err)
	}
	w.stop() // it was decided when it joined, whatever is said later
	w.Change(func(o *proc.Options) { o.Args = nil })
	w.restart()
	w.refuses(all[0], why)
	a.cget(all).same(t, "C-GET at the node that took them in", all)
}

// refuses checks that a node takes an instance in by no face, and says why.
func (n *node) refuses(in instance, why string) {
	n.t.Helper()
	sender := scu.NewSender(n.target("E2E"), kinds([]instance{in}), 1)
	if status, err := sender.Store(n.t.Context(), in.outgoing(), scu.Originator{}); !fault.Is(err, fault.Unsupported) {
		n.t.Errorf("C-STORE: status %v, %v", status, err)
	}
	if err := sender.Close(n.t.Context()); err != nil {
		n.t.Error(err)
	}
	if log := n.Log(); !strings.Contains(log, "storage is not accepted") || !strings.Contains(log, why) {
		n.t.Error("the log does not say why storage is not accepted")
	}
	answer := n.do(http.MethodPost, "/dicom-web/studies", bytes.NewReader(in.file), http.Header{"Content-Type": {"application/dicom"}})
	if text := string(readAll(n.t, answer)); answer.StatusCode != http.StatusServiceUnavailable || text != why+"\n" {
		n.t.Errorf("STOW-RS: %d %q", answer.StatusCode, text)
	}
	r, err := n.Command(n.t.Context(), "import", "--data", n.Data(), writeFile(n.t, in))
	if err != nil || r.Code != 1 || !strings.Contains(r.Stderr, why) {
		n.t.Errorf("import: %+v, %v", r, err)
	}
}

// writeFile writes an instance to a file and returns its name.
func writeFile(t testing.TB, in instance) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "one.dcm")
	if err := os.WriteFile(name, in.file, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestADrainedNodeTakesNothingInAndServesWhatItHolds(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	all := world(dimsetest.World{Seed: 68, Patients: 2})
	before, after := all[:len(all)/2], all[len(all)/2:]
	b.cstore(before)
	sender := scu.NewSender(b.target("E2E"), kinds(all), 1)
	if status, err := sender.Store(t.Context(), before[0].outgoing(), scu.Originator{}); err != nil || status != 0 {
		t.Fatalf("status %v, %v", status, err)
	}
	drain := func(args ...string) {
		t.Helper()
		if r, err := a.Command(t.Context(), append([]string{"drain", "--data", a.Data(), b.id()}, args...)...); err != nil || r.Code != 0 {
			t.Fatalf("drain: %+v, %v", r, err)
		}
	}
	drain()
	b.sees("drained", b)
	status, err := sender.Store(t.Context(), after[0].outgoing(), scu.Originator{})
	refused := new(dimse.StatusError)
	if status != dimse.OutOfResources || !errors.As(err, &refused) || refused.Comment != "this node is drained: it takes nothing in" {
		t.Errorf("C-STORE on an association from before: %v, %v", status, err)
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Error(err)
	}
	b.refuses(after[0], "this node is drained: it takes nothing in")
	b.cget(before).same(t, "C-GET from the drained node", before)
	drain("--undo")
	b.sees("alive", b)
	b.cstore(after)
	b.cget(all).same(t, "C-GET once it takes things in again", all)
}

func TestStrangersAtThePortBetweenNodesGetNowhere(t *testing.T) {
	a := start(t, at("Mercy"))
	b := start(t, joining("Grace", a, a.token()))
	a.sees("alive", b)
	for name, say := range map[string][]byte{
		"garbage": []byte("\x00\xff\x13garbage\r\n\r\n"), "HTTP": []byte("GET /node/members HTTP/1.1\r\nHost: x\r\n\r\n"), "DICOM": {1, 0, 0, 0, 0, 4, 0, 1, 0, 0},
	} {
		conn, err := net.Dial("tcp", a.Peer())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(say); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(soon)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if len(answer) > 16 || errors.Is(err, os.ErrDeadlineExceeded) { // a TLS alert, or nothing
			t.Errorf("%s: answered with %q, %v", name, answer, err)
		}
		conn.Close()
	}
	for _, protocol := range []string{"h2", "pelago-raft/1", "pelago-gossip/1", "http/1.1"} {
		conn, err := tls.Dial("tcp", a.Peer(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}}) //nolint:gosec // a stranger does not care
		if err == nil {                                                                                               // the client is through before the server has asked for its certificate
			_, err = io.ReadAll(conn)
			conn.Close()
		}
		if err == nil {
			t.Errorf("%s without a certificate: it was not refused", protocol)
		}
	}
	a.sees("alive", b)
	a.healthy()
	if log := a.Log(); !strings.Contains(log, "peer connection refused") {
		t.Errorf("it said\n%s", tail(log, 20))
	}
}

func TestAPortBetweenNodesThatIsTakenIsAClearRefusal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := proc.Options{Dir: t.TempDir(), Peer: l.Addr().String()}
	o.Data = filepath.Join(o.Dir, "data")
	if said := refused(t, o); !strings.Contains(said, "peer.listen") {
		t.Errorf("it said:\n%s", said)
	}
	n := start(t, func(p *proc.Options) { p.Data = o.Data })
	n.healthy()
}
