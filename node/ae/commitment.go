package ae

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
)

// Status tells whether an instance is committed. nil: it survives the loss of
// as many sites as the network promises. fault.NotFound: unknown or deleted;
// Mismatch: another class; Conflict: this sender's last version is quarantined;
// Corrupt; any other kind: not known yet, ask again.
type Status interface {
	Committed(ctx context.Context, class, sop, sender string) error
}

// Rows keep the requests under way. *archive.Rows is one.
type Rows interface {
	Put(key string, value []byte) error
	Get(key string) (value []byte, ok bool, err error)
	Delete(key string) error
	Each(visit func(key string, value []byte) error) error
}

// Failure Reasons of storage commitment (PS3.3 C.14.1.1; DESIGN §9).
const (
	reasonProcessing = 0x0110 // corrupt, or kept aside: keep your copy
	reasonUnknown    = 0x0112
	reasonClass      = 0x0119 // class differs from the stored one
	reasonNotServed  = 0x0122 // class is no storage class
	reasonResources  = 0x0213 // not safe at the deadline
)

// Time limits of storage commitment (DESIGN §9).
const (
	unknownGrace   = 10 * time.Minute   // an unknown instance may still come
	commitDeadline = 24 * time.Hour     // then what is not safe has failed
	deliverFor     = 7 * 24 * time.Hour // results are retried for this long
	sameAssoc      = 10 * time.Second   // a result ready by then goes over the request's association
	recheckEvery   = 2 * time.Second    // unsettled requests are looked at this often
	firstRetry     = 10 * time.Second
	lastRetry      = 30 * time.Minute
	maxReferences  = 100_000 // of one request
	maxRequests    = 10_000  // under way at once
	deliveries     = 4       // results on their way at once
)

// statusDuplicateTransaction answers an N-ACTION whose transaction UID is in
// use for other instances (PS3.3 C.14.1.1).
const statusDuplicateTransaction command.Status = 0x0131

// transaction is the durable form of a request (row "AE\x00transaction UID").
type transaction struct {
	Version    int                     `json:"version"`
	AE         string                  `json:"ae"`
	UID        string                  `json:"uid"`
	References []dimse.Reference       `json:"references"`
	Asked      time.Time               `json:"asked"`
	Result     *dimse.CommitmentResult `json:"result,omitempty"` // once known
	Tries      int                     `json:"tries,omitempty"`
	Next       time.Time               `json:"next,omitzero"` // of delivery
}

func (t *transaction) key() string { return t.AE + "\x00" + t.UID }

// commitments drives requests to their results.
type commitments struct {
	face *Face
	wake chan struct{}

	mu     sync.Mutex
	open   map[string]*transaction
	busy   map[string]bool
	report map[string]reporter // requests whose association may still be there
}

type reporter struct {
	send  func(context.Context, *dimse.CommitmentResult) error
	until time.Time
}

func newCommitments(f *Face) *commitments {
	return &commitments{
		face: f, wake: make(chan struct{}, 1),
		open: map[string]*transaction{}, busy: map[string]bool{}, report: map[string]reporter{},
	}
}

// Commit implements [scp.Committer]: the request is durable when it returns.
func (s *session) Commit(_ context.Context, r *scp.CommitRequest) error {
	err := s.face.commits.take(s.caller.Title, r)
	s.face.o.Audit(Event{
		Action: Committed, AE: s.caller.Title, Remote: s.remote, Instances: len(r.References), Failed: err != nil,
	})
	return err
}

func (c *commitments) take(ae string, r *scp.CommitRequest) error {
	if len(r.References) > maxReferences {
		return fault.New(fault.Full, "%d references in one storage commitment request", len(r.References))
	}
	t := &transaction{Version: recordVersion, AE: ae, UID: r.Transaction, References: r.References, Asked: time.Now()}
	c.mu.Lock()
	known, ok := c.open[t.key()]
	full := len(c.open) >= maxRequests
	if !ok && !full {
		c.open[t.key()] = t
		c.busy[t.key()] = true // until its row is durable
	}
	c.mu.Unlock()
	switch {
	case ok && slices.Equal(known.References, t.References):
		c.remember(t.key(), r)
		return nil // the same request again: one result
	case ok:
		return &dimse.StatusError{Status: statusDuplicateTransaction}
	case full:
		return fault.New(fault.Full, "%d storage commitment requests are under way", maxRequests)
	}
	err := c.save(t)
	c.mu.Lock()
	delete(c.busy, t.key())
	if err != nil {
		delete(c.open, t.key())
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	c.remember(t.key(), r)
	return nil
}

func (c *commitments) remember(key string, r *scp.CommitRequest) {
	c.mu.Lock()
	c.report[key] = reporter{send: r.Report, until: time.Now().Add(sameAssoc)}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *commitments) save(t *transaction) error {
	value, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return c.face.o.Rows.Put(t.key(), value)
}

// Run delivers storage commitment results until ctx ends; requests that were
// under way when the node last stopped are taken up again.
func (f *Face) Run(ctx context.Context) error { return f.commits.run(ctx) }

func (c *commitments) run(ctx context.Context) error {
	if err := c.load(); err != nil {
		return err
	}
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	places := make(chan struct{}, deliveries)
	var work sync.WaitGroup
	defer work.Wait()
	for {
		for _, t := range c.due(time.Now()) {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			work.Go(func() {
				defer func() { <-places }()
				c.advance(ctx, t)
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.wake:
		}
	}
}

// load reads the rows of an earlier run.
func (c *commitments) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.face.o.Rows.Each(func(_ string, value []byte) error {
		t := &transaction{}
		if err := json.Unmarshal(value, t); err != nil {
			return fault.New(fault.Corrupt, "storage commitment request: %w", err)
		}
		if t.Version > recordVersion {
			return fault.New(fault.Unsupported, "storage commitment request of version %d, newer than %d", t.Version, recordVersion)
		}
		if _, ok := c.open[t.key()]; !ok {
			c.open[t.key()] = t
		}
		return nil
	})
}

// due picks the requests that something may be done for, and marks them busy.
func (c *commitments) due(now time.Time) []*transaction {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*transaction
	for key, t := range c.open {
		if c.busy[key] || t.Next.After(now) {
			continue
		}
		c.busy[key] = true
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *transaction) int { return a.Asked.Compare(b.Asked) })
	return all
}

// advance takes one request a step further: its result, then its delivery.
func (c *commitments) advance(ctx context.Context, t *transaction) {
	defer func() {
		c.mu.Lock()
		delete(c.busy, t.key())
		c.mu.Unlock()
	}()
	if t.Result == nil {
		result := c.judge(ctx, t)
		if result == nil {
			return // looked at again at the next tick
		}
		t.Result = result
		if err := c.save(t); err != nil {
			c.face.o.Log.Error("storage commitment result not saved", "error", err)
			t.Result = nil
			return
		}
	}
	err := c.deliver(ctx, t)
	switch {
	case err == nil:
		c.close(t)
	case ctx.Err() != nil:
	case time.Since(t.Asked) > deliverFor:
		c.face.o.Log.Error("storage commitment result given up", "calling_ae", t.AE, "tries", t.Tries, "error", err)
		c.close(t)
	default:
		t.Next = time.Now().Add(min(firstRetry<<min(t.Tries, 20), lastRetry))
		t.Tries++
		c.face.o.Log.Info("storage commitment result not delivered yet", "calling_ae", t.AE, "tries", t.Tries, "error", err)
		if err := c.save(t); err != nil {
			c.face.o.Log.Error("storage commitment request not saved", "error", err)
		}
	}
}

// close forgets a finished request.
func (c *commitments) close(t *transaction) {
	if err := c.face.o.Rows.Delete(t.key()); err != nil {
		c.face.o.Log.Error("storage commitment request not dropped", "error", err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, t.key())
	delete(c.report, t.key())
}

// judge asks for every instance whether it is committed; nil while that is not
// known of all.
func (c *commitments) judge(ctx context.Context, t *transaction) *dimse.CommitmentResult {
	age := time.Since(t.Asked)
	result := &dimse.CommitmentResult{Transaction: t.UID, RetrieveAE: c.face.o.Title}
	for _, ref := range t.References {
		if ctx.Err() != nil {
			return nil
		}
		reason := uint16(0)
		if !dict.IsStorageClass(ref.Class) {
			reason = reasonNotServed
		} else if err := c.face.o.Status.Committed(ctx, ref.Class, ref.Instance, t.AE); err != nil {
			switch fault.KindOf(err) {
			case fault.NotFound:
				if age < unknownGrace {
					return nil
				}
				reason = reasonUnknown
			case fault.Mismatch:
				reason = reasonClass
			case fault.Corrupt, fault.Conflict:
				reason = reasonProcessing
			default:
				if age < commitDeadline {
					return nil
				}
				reason = reasonResources
			}
		}
		if reason == 0 {
			result.Committed = append(result.Committed, ref)
		} else {
			result.Failed = append(result.Failed, dimse.FailedReference{Reference: ref, Reason: reason})
		}
	}
	return result
}

// deliver reports a result on the request's association if that is still there
// soon enough, else on a new one.
func (c *commitments) deliver(ctx context.Context, t *transaction) error {
	c.mu.Lock()
	report, ok := c.report[t.key()]
	delete(c.report, t.key())
	c.mu.Unlock()
	if ok && time.Now().Before(report.until) {
		limited, cancel := context.WithDeadline(ctx, report.until)
		err := report.send(limited, t.Result)
		cancel()
		if err == nil {
			return nil
		}
		c.face.o.Log.Debug("storage commitment result not taken on its association", "calling_ae", t.AE, "error", err)
	}
	ae, err := c.face.o.Registry.Get(t.AE)
	if err != nil {
		return err
	}
	target, err := c.face.Target(ae)
	if err != nil {
		return err
	}
	client, err := scu.Dial(ctx, target, scu.ProposeCommitmentResult())
	if err != nil {
		return err
	}
	if err := client.SendCommitmentResult(ctx, t.Result); err != nil {
		return errors.Join(err, client.Abort())
	}
	if err := client.Release(ctx); err != nil {
		c.face.o.Log.Info("association not released", "called_ae", t.AE, "error", err)
	}
	return nil
}

// Pending is how many storage commitment requests wait for their result or its
// delivery.
func (f *Face) Pending() int {
	f.commits.mu.Lock()
	defer f.commits.mu.Unlock()
	return len(f.commits.open)
}
