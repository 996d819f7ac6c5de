package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/shard"
)

// committer is a modality that asks for storage commitment, and takes results on the
// association on which it asked or on a new one.
type committer struct {
	title   string
	port    int
	results chan *dimse.CommitmentResult
	stop    func() error
}

// maxCommit is how long a result is waited for.
const maxCommit = 10 * time.Minute

// newCommitter listens.
func newCommitter(ctx context.Context) (*committer, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &committer{title: "BENCHMOD", port: l.Addr().(*net.TCPAddr).Port, results: make(chan *dimse.CommitmentResult, 16)}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	server := &scp.Server{Admit: c}
	go func() { done <- server.Serve(ctx, l) }()
	c.stop = func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
	return c, nil
}

// Admit implements scp.Admitter.
func (c *committer) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Echo: c, Committed: c.take}, nil
}

// Echo implements scp.Echoer.
func (c *committer) Echo(context.Context) error { return nil }

func (c *committer) take(ctx context.Context, r *dimse.CommitmentResult) error {
	select {
	case c.results <- r:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// commit stores a folder at a node, asks it to commit to all of it, and returns the
// seconds from the request to the result, which must be success for all.
func (c *committer) commit(ctx context.Context, n *fleet.Node, transaction string, files folder) (float64, error) {
	if err := server(n).StoreSCU(ctx, nil, files.paths...); err != nil {
		return 0, err
	}
	request := &dimse.CommitmentRequest{Transaction: transaction}
	for _, image := range files.images {
		request.References = append(request.References, dimse.Reference{Class: image.Study.Class, Instance: image.UID()})
	}
	ctx, cancel := context.WithTimeout(ctx, maxCommit)
	defer cancel()
	client, err := scu.Dial(ctx, scu.Target{Addr: n.DICOM(), Called: n.AE(), Calling: c.title, Committed: c.take}, scu.ProposeCommitment())
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = client.RequestCommitment(ctx, request)
	var result *dimse.CommitmentResult
	for err == nil && result == nil {
		select {
		case r := <-c.results:
			if r.Transaction == transaction { // else one that was sent again
				result = r
			}
		case <-ctx.Done():
			err = fmt.Errorf("no result of storage commitment within %v", maxCommit)
		}
	}
	took := time.Since(began).Seconds()
	_ = client.Release(ctx) // a result that came on another association may have outlived this one
	switch {
	case err != nil:
		return 0, err
	case len(result.Committed) != files.files || len(result.Failed) > 0:
		return 0, fmt.Errorf("committed to %d of %d images, %d failed", len(result.Committed), files.files, len(result.Failed))
	}
	return took, nil
}

// agrees is how soon a node says of a study that it is protected, once it has committed
// to it: what it tells may be some moments old.
const agrees = 2 * time.Second

// kept makes sure that what was committed to survives what the network promises: a node
// that commits at once would be the fastest. web is the address of its web face.
func kept(ctx context.Context, web string, survives int, files folder) error {
	for _, study := range studiesOf(files) {
		var p protection
		err := untilWithin(ctx, agrees, "a study that was committed to is protected", func() (bool, error) {
			p = protection{}
			err := getAPI(ctx, web, "/api/studies/"+study+"/protection", &p)
			return p.protected(survives), err
		})
		if err != nil {
			return fmt.Errorf("%w: it is %s and survives %d sites", err, p.State, p.SurvivesSites)
		}
	}
	return nil
}

// shardCommit asks for storage commitment of studies that were just stored.
func shardCommit(ctx context.Context, b *bench, s *sheet) error {
	const n, roundTrip = 6, 80 * time.Millisecond
	s.note("%d sites, %v and 1 Gb/s apart; %d studies a round of 100 CT of 526 KB, one after the other, each at another site, on which `storescu` has ended just before; from N-ACTION to N-EVENT-REPORT of success for all images; the node then says itself that the study survives two sites, or the row fails. Of so few a round, p99 is the longest", n, roundTrip, b.cut.commits)
	s.note("one site down: its process is killed at the beginning of the round's second half, and nobody told; it does not lead")
	c, err := newCommitter(ctx)
	if err != nil {
		return err
	}
	err = b.striping(ctx, world.Both(roundTrip, world.Gbps), n, func(f *fleet.Fleet, _ shard.Code, survives int) error {
		for _, node := range f.Nodes {
			if err := (peer.Node{Server: server(node)}).Register(ctx, c.title, c.port); err != nil {
				return err
			}
		}
		for round := range b.rounds {
			if err := b.commitHalves(ctx, s, c, f, survives, round); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, c.stop())
}

// commitHalves is a round: with all sites, and with one down.
func (b *bench) commitHalves(ctx context.Context, s *sheet, c *committer, f *fleet.Fleet, survives, round int) error {
	first, err := leader(ctx, f)
	if err != nil {
		return err
	}
	down := f.Nodes[len(f.Nodes)-1]
	if down == first {
		down = f.Nodes[len(f.Nodes)-2]
	}
	for half, name := range []string{"commit", "commit down"} {
		if half == 1 {
			if err := down.Kill(); err != nil {
				return err
			}
		}
		var took []float64
		for i := range b.cut.commits {
			at := f.Nodes[i%len(f.Nodes)]
			if !at.Running() {
				at = first
			}
			id := (2*round+half)*b.cut.commits + i
			files, err := b.ct(fmt.Sprintf("commit-%d", id), uint64(seedNetwork+id), b.cut.study, b.cut.study)
			if err != nil {
				return err
			}
			seconds, err := c.commit(ctx, at, fmt.Sprintf("2.25.%d", 1000+id), files)
			if err != nil {
				return err
			}
			if err := kept(ctx, at.HTTP(), survives, files); err != nil {
				return err
			}
			took = append(took, seconds)
			if err := b.inputs.drop(files); err != nil {
				return err
			}
		}
		s.add(name+" p50", "s", pelago, percentile(took, 50))
		s.add(name+" p99", "s", pelago, percentile(took, 99))
		b.say("  round %d, %s: p50 %s s, p99 %s s", round+1, name, number(percentile(took, 50)), number(percentile(took, 99)))
	}
	if err := down.Restart(ctx); err != nil {
		return err
	}
	return settled(ctx, f)
}
