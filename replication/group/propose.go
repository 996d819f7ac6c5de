package group

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/cluster/port"
	"pelago/replication/consensus"
	"pelago/replication/raftlog"
)

// maxAnswer bounds answers that are a few numbers, or one a member, in bytes.
const maxAnswer = 64 << 10

// Propose puts an entry into the order, through the leader wherever it is, and
// returns its index once it is committed and applied here. The error is
// fault.Unavailable when there is no leader or no majority, fault.Full when this node
// has proposed more than its share, and what the catalogue's Admit says of an entry
// that every node would refuse; an error that wraps consensus.ErrUnknownOutcome is of
// an entry that may be committed yet. An entry that is refused for sure because the
// leader has moved is proposed once more.
//
// An index beside an error says that the entry was refused by what is committed up to
// there, which is applied here: to ask again is of no use before something changes.
func (g *Group) Propose(ctx context.Context, entry []byte) (index uint64, err error) {
	if err := g.proposable(entry); err != nil {
		return 0, err
	}
	refused := ""
	for range 2 {
		var leader string
		if leader, err = g.awaitLeader(ctx, refused); err != nil {
			return 0, err
		}
		index, err = g.proposeTo(ctx, leader, entry)
		if err == nil || index > 0 || errors.Is(err, consensus.ErrUnknownOutcome) || !fault.Is(err, fault.Unavailable) {
			break
		}
		refused = leader
	}
	switch {
	case index == 0:
		return 0, err
	case err != nil:
		if late := g.node.AwaitApplied(ctx, index); late != nil {
			return 0, fmt.Errorf("%w; %w", err, late)
		}
		return index, err
	}
	if err := g.node.AwaitApplied(ctx, index); err != nil {
		return 0, fmt.Errorf("group: entry %d is committed and not applied here: %w: %w", index, consensus.ErrUnknownOutcome, err)
	}
	return index, nil
}

// proposable refuses what need not be sent to the leader.
func (g *Group) proposable(entry []byte) error {
	if len(entry) == 0 || len(entry) > raftlog.MaxEntryBytes {
		return fault.New(fault.Invalid, "group: an entry of %d bytes", len(entry))
	}
	if err := g.Fenced(); err != nil {
		return fault.New(fault.Unavailable, "group: no proposal: %w", err)
	}
	return nil
}

// order puts an entry of a node into the order, this node being the leader. What is
// committed is in every node's log, whatever they make of it: so each entry is judged
// before, at the leader's own as at others'. An index beside an error is one up to
// which what is committed refuses the entry.
func (g *Group) order(ctx context.Context, from string, entry []byte) (uint64, error) {
	if err := g.proposable(entry); err != nil {
		return 0, err
	}
	// What its predecessors have committed tells whose entry is the next.
	if err := g.node.Ready(ctx); err != nil {
		return 0, err
	}
	again, err := g.o.Catalogue.Admit(from, entry)
	if err != nil {
		index := uint64(0)
		switch fault.KindOf(err) {
		case fault.Denied, fault.Mismatch, fault.Conflict:
			index = g.o.Catalogue.Position().Index
		}
		return index, fmt.Errorf("group: no proposal: %w", err)
	}
	if err := g.shares.take(ctx, from, len(entry)); err != nil {
		return 0, err
	}
	index, err := g.node.Propose(ctx, entry)
	if err != nil {
		return 0, err
	}
	if results, ok := g.o.Catalogue.Results(index); again || ok && inVain(results) {
		g.shares.charge(from, len(entry))
	}
	return index, nil
}

// inVain reports whether nothing of an entry was taken.
func inVain(results []error) bool {
	return len(results) > 0 && !slices.Contains(results, nil)
}

// awaitLeader returns who leads. It waits, for as long as an election takes, for
// anybody at all, or for another one than who has just refused.
func (g *Group) awaitLeader(ctx context.Context, refused string) (string, error) {
	changes, cancel := g.node.Subscribe()
	defer cancel()
	limit := time.NewTimer(2 * g.settings.Raft.Election)
	defer limit.Stop()
	for {
		leader := g.Leader()
		if leader != "" && leader != refused {
			return leader, nil
		}
		select {
		case <-changes:
		case <-limit.C:
			if leader != "" {
				return leader, nil
			}
			return "", fault.New(fault.Unavailable, "group: no leader is known: nothing is decided without a majority of the voters")
		case <-ctx.Done():
			return "", fault.New(fault.KindOf(ctx.Err()), "group: no leader is known: %w", ctx.Err())
		}
	}
}

// proposeTo has an entry put into the order by a node that should lead.
func (g *Group) proposeTo(ctx context.Context, leader string, entry []byte) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Propose)
	defer cancel()
	if leader == g.o.ID {
		return g.order(ctx, leader, entry)
	}
	generation, _ := g.node.Generation()
	// What no connection was found for has not been sent, and what was answered
	// with an error by the leader itself has an outcome.
	var sent atomic.Bool
	trace := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	trace, stop := g.whileLeader(trace, leader)
	defer stop()
	path := "/raft/propose?" + url.Values{"generation": {strconv.FormatUint(generation, 10)}}.Encode()
	response, err := g.o.Peers.Do(trace, leader, http.MethodPost, path, bytes.NewReader(entry))
	if err != nil {
		switch {
		case sent.Load() && !call.Answered(err):
			err = fault.New(fault.Unavailable, "group: proposal to the leader: %w: %w", consensus.ErrUnknownOutcome, err)
		case ctx.Err() == nil && fault.Is(err, fault.Canceled):
			err = fault.New(fault.Unavailable, "group: another node leads now: %w", err)
		}
		return 0, err
	}
	var a proposed
	err = readAnswer(response, &a)
	if err == nil {
		err = a.check()
	}
	switch {
	case err != nil || a.Index == 0:
		return 0, fault.New(fault.Unavailable, "group: proposal at the leader: %w", errors.Join(consensus.ErrUnknownOutcome, err))
	case a.Refused == nil:
		g.node.Told(ctx, leader, a.Term, a.Index)
		return a.Index, nil
	}
	return a.Index, fault.New(fault.Kind(a.Refused.Kind), "leader: %s", strings.ToValidUTF8(a.Refused.Text, "\uFFFD"))
}

// whileLeader ends a context soon after another node leads than the one that is
// asked: that one may be cut off, and what it has not said it can say no more.
func (g *Group) whileLeader(ctx context.Context, leader string) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	changes, forget := g.node.Subscribe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer forget()
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-changes:
				if s.Leader == "" || s.Leader == leader {
					continue
				}
			}
			pause.For(ctx, time.Second) // for an answer that is on its way
			cancel()
			return
		}
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}

// proposed answers a proposal. Index 0: the outcome is not known.
type proposed struct {
	Index uint64 `json:"index"`
	// Term is that of the entry there, which is committed: the leader's. 0: not told.
	Term uint64 `json:"term,omitempty"`
	// Refused is why the entry is not in the order; by what is committed up to Index.
	Refused *refusal `json:"refused,omitempty"`
}

type refusal struct {
	Kind uint8  `json:"kind"` // a fault.Kind
	Text string `json:"text"`
}

// maxReason bounds the text of a refusal, in bytes.
const maxReason = 512

// refusalOf is what an asker is told of an error.
func refusalOf(err error) *refusal {
	text := err.Error()
	// What is cut in the middle of a letter would come as a longer text.
	return &refusal{uint8(fault.KindOf(err)), strings.ToValidUTF8(text[:min(len(text), maxReason)], "")}
}

func (p proposed) check() error {
	if p.Refused != nil && (p.Index == 0 || int(p.Refused.Kind) >= len(fault.Kinds()) || len(p.Refused.Text) > maxReason) {
		return fault.New(fault.Protocol, "group: a refusal at %d", p.Index)
	}
	return nil
}

func (g *Group) servePropose(w http.ResponseWriter, r *http.Request) {
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	entry, err := call.Read(http.MaxBytesReader(w, r.Body, raftlog.MaxEntryBytes+1), raftlog.MaxEntryBytes)
	var from string
	if err == nil {
		from, err = callerOf(r)
	}
	if err != nil {
		call.Refuse(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), g.settings.Propose)
	defer cancel()
	index, err := g.order(ctx, from, entry)
	switch {
	case errors.Is(err, consensus.ErrUnknownOutcome):
		g.log.Warn("outcome of a peer's proposal is not known", "error", err)
		writeAnswer(w, proposed{})
	case err != nil && index > 0:
		g.log.Warn("a peer's proposal is refused", "peer", from, "error", err)
		writeAnswer(w, proposed{Index: index, Refused: refusalOf(err)})
	case err != nil:
		call.Refuse(w, err)
	default:
		writeAnswer(w, proposed{Index: index, Term: g.node.TermAt(index)})
	}
}

// callerOf is the node that calls, by its certificate.
func callerOf(r *http.Request) (string, error) {
	if r.TLS == nil {
		return "", fault.New(fault.Denied, "group: a call of nobody")
	}
	name, err := port.PeerOf(*r.TLS)
	return name.Node, err
}

// sameGeneration refuses who takes part in another generation of the network.
func (g *Group) sameGeneration(r *http.Request) error {
	theirs, err := strconv.ParseUint(r.URL.Query().Get("generation"), 10, 32)
	if err != nil {
		return fault.New(fault.Invalid, "group: a call without a generation")
	}
	if ours, known := g.node.Generation(); !known || ours != theirs {
		return fault.New(fault.Unavailable, "group: generation %d, and not %d", ours, theirs)
	}
	return nil
}

func writeAnswer(w http.ResponseWriter, answer any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // an asker that is gone needs no answer
}

// readAnswer reads a small answer and closes its body.
func readAnswer(response *http.Response, into any) error {
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxAnswer)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fault.New(fault.Protocol, "group: a peer's answer: %w", err)
	}
	return nil
}
