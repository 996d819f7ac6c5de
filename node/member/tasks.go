package member

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/cluster/port"
)

const (
	// keepEvery is how often the records are looked at beside every change of them:
	// who votes changes without one.
	keepEvery = 5 * time.Minute
	keepRetry = 2 * time.Second
	// beginRetry is the pause while a network of one has no leader yet: some
	// milliseconds after its start it has.
	beginRetry = 20 * time.Millisecond
	// decideTime bounds one round of decisions of a task, moveTime that of an address.
	decideTime = 30 * time.Second
	moveTime   = 5 * time.Second
	// watchEvery is how often a node makes sure that others still take it in.
	watchEvery = 30 * time.Second
	watchTime  = 10 * time.Second
)

// Serve answers at the listener of the join protocol until the context or the
// listener ends, and returns when the last request has ended. The port bounds how
// many there are and how long they take.
func (o *Office) Serve(ctx context.Context, l net.Listener) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fault.New(fault.Unavailable, "member: accept: %w", err)
		}
		requests.Go(func() {
			defer conn.Close()
			if err := authority.Serve(ctx, conn, o); err != nil {
				o.o.Log.Warn("a node was not let in", "remote", conn.RemoteAddr().String(), "error", err, "kind", fault.KindOf(err).String())
			}
		})
	}
}

// Begin makes the founder's record of itself, if this node founded the network
// and has not done so: the first decision of the network. It returns once the
// catalogue knows this node as a member.
func (o *Office) Begin(ctx context.Context) error {
	m := o.o.Membership
	if m.Founder() && !o.o.Registry.Known() {
		for err := o.begin(ctx); err != nil; err = o.begin(ctx) {
			if !fault.Is(err, fault.Unavailable) || !pause.For(ctx, beginRetry) {
				return err
			}
		}
	}
	for {
		changed := o.o.Registry.Changed()
		if o.o.Registry.Known() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "member: the catalogue has not come: %w", ctx.Err())
		}
	}
}

func (o *Office) begin(ctx context.Context) error {
	m := o.o.Membership
	self := Member{
		Node: m.Self.ID(), Site: m.Name().Site, Public: m.Self.Public(), Sealing: m.Self.Sealing(), Proof: m.Self.SealingProof(),
		Address: o.o.Place.Address, Witness: o.o.Place.Witness, Founder: true,
	}
	value, err := self.Encode()
	if err != nil {
		return err
	}
	signer, err := m.Signer()
	if err != nil {
		return err
	}
	if signer == nil {
		return fault.New(fault.Corrupt, "member: the founder's papers lack the authority's key")
	}
	sealed, err := signer.SealTo(self.Node, self.Sealing)
	if err != nil {
		return err
	}
	return o.decisions.Make(ctx, func(s *Step) error {
		known, err := o.decisions.Record(kindMember, self.Node)
		if err != nil || known != nil {
			return err
		}
		s.Given(kindMember, self.Node, nil)
		s.Put(kindMember, self.Node, value)
		s.Put(kindSigner, self.Node, sealed)
		if self.Witness || o.o.First == nil {
			return nil
		}
		return o.o.First(s)
	})
}

// Keep brings the records in line with this node until the context ends: the
// address where it is reached now, the authority's key for those that are to
// have it. What fails is tried again.
func (o *Office) Keep(ctx context.Context) error {
	for {
		changed := o.o.Registry.Changed()
		wait := jitter(keepEvery)
		if err := o.keep(ctx); err != nil && ctx.Err() == nil {
			o.o.Log.Debug("membership", "error", err)
			wait = jitter(keepRetry)
			changed = nil
		}
		if !pause.Until(ctx, changed, wait) {
			return nil
		}
	}
}

func (o *Office) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, decideTime)
	defer cancel()
	self := o.o.Membership.Self.ID()
	if o.o.Membership.Founder() && !o.o.Registry.Known() {
		return o.begin(ctx)
	}
	m, ok := o.o.Registry.Member(self)
	if !ok || !o.o.Registry.Known() || o.o.Registry.Revoked(self) {
		if o.o.Registry.Revoked(self) {
			o.wasRemoved()
		}
		return nil
	}
	var errs []error
	if m.Address != o.o.Place.Address {
		err := o.move(ctx, self, o.o.Place.Address)
		if err != nil { // nobody who leads finds this node where it is now: others are asked to say so
			err = o.announce(ctx)
		}
		if err == nil {
			o.o.Log.Info("the network knows the new address of this node", "address", o.o.Place.Address)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, o.take(), o.seal(ctx))...)
}

// move records where a node is reached now.
func (o *Office) move(ctx context.Context, node, address string) error {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	return o.decisions.Make(ctx, func(s *Step) error {
		return o.amend(s, node, func(m *Member) { m.Address = address })
	})
}

// announce has another node record where this one is.
func (o *Office) announce(ctx context.Context) error {
	others := o.others()
	rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	err := fault.New(fault.Unavailable, "member: there is nobody to tell the new address")
	for _, m := range others {
		var answer *http.Response
		answer, err = o.o.Peers.Do(ctx, m.Node, http.MethodPost, pathAddress, strings.NewReader(o.o.Place.Address))
		if err == nil {
			return answer.Body.Close()
		}
	}
	return err
}

// KeepValid renews this node's certificate whenever it is due, until the context
// ends. The certificate of a node that was removed is not renewed any more.
func (o *Office) KeepValid(ctx context.Context) error {
	err := o.o.Membership.Credentials.KeepValid(ctx, o.renewSelf, func(err error) {
		o.o.Log.Warn("the certificate could not be renewed yet", "error", err)
	})
	if ctx.Err() == nil && !errors.Is(err, authority.Revoked) {
		return err
	}
	return nil
}

// Watch finds out whether the network has removed this node, until the context
// ends. The others do not tell it: they close its connections, as they would a
// stranger's. So it asks one of them in turn for something small, and where that
// fails, by the join protocol, whose answer says why.
func (o *Office) Watch(ctx context.Context) error {
	for {
		if !pause.For(ctx, jitter(watchEvery)) {
			return nil
		}
		if others := o.others(); len(others) > 0 && !o.Removed() {
			o.watch(ctx, others[rand.IntN(len(others))].Node)
		}
	}
}

func (o *Office) watch(ctx context.Context, node string) {
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	answer, err := o.o.Peers.Do(ctx, node, http.MethodGet, pathStanding, nil)
	if err == nil {
		answer.Body.Close() //nolint:errcheck // nothing is read from it
		return
	}
	m := o.o.Membership
	request, err := authority.NewRenewal(m.Credentials.Root(), m.Self, m.Credentials.Certificate().Leaf.Raw)
	if err != nil {
		o.o.Log.Error("membership", "error", err)
		return
	}
	// What it answers otherwise is for KeepValid to ask for, when it is due.
	if _, err := o.renewAt(ctx, node, request); errors.Is(err, authority.Revoked) {
		o.wasRemoved()
	}
}

// renewAt asks one node for a new certificate by the join protocol.
func (o *Office) renewAt(ctx context.Context, node string, request authority.Renewal) ([]byte, error) {
	root := o.o.Membership.Credentials.Root()
	address, err := o.o.Registry.Locate(ctx, node)
	if err != nil {
		return nil, err
	}
	conn, _, err := port.DialJoin(ctx, o.o.Dial, address, root.Hash())
	if err != nil {
		return nil, fault.New(fault.Unavailable, "member: ask node %s: %w", node, err)
	}
	defer conn.Close() //nolint:errcheck // the answer has come, or will not
	return authority.Renew(ctx, conn, root, request)
}

// wasRemoved notes, once, that the network says so. The node goes on for those who
// are here.
func (o *Office) wasRemoved() {
	if !o.removed.Swap(true) {
		o.o.Log.Error("the network has removed this node: it goes on serving what it holds, and hears of nothing new")
	}
}

// Removed reports whether the network has said that this node was removed.
func (o *Office) Removed() bool {
	return o.removed.Load() || o.o.Registry.Revoked(o.o.Membership.Self.ID())
}

func jitter(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2) }
