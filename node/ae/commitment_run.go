package ae

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
	"pelago/node/archive"
	"pelago/node/work"
)

// Failure Reasons of storage commitment (PS3.3 C.14.1.1; DESIGN §9).
const (
	reasonProcessing = 0x0110 // corrupt, or kept aside: keep your copy
	reasonUnknown    = 0x0112
	reasonClass      = 0x0119 // class differs from the stored one
	reasonNotServed  = 0x0122 // class is no storage class
	reasonResources  = 0x0213 // not safe at the deadline
)

// What request.verdicts holds besides reasons.
const (
	verdictOpen = iota // not known yet
	verdictCommitted
)

// Time limits of storage commitment (DESIGN §9).
const (
	unknownGrace   = 10 * time.Minute   // an unknown instance may still come
	commitDeadline = 24 * time.Hour     // then what is not safe has failed
	deliverFor     = 7 * 24 * time.Hour // results are retried for this long
	sameAssoc      = 10 * time.Second   // a result ready by then goes over the request's association
	firstLook      = 2 * time.Second    // until the instances are looked at again, then doubling
	lastLook       = time.Minute
	soonLook       = 50 * time.Millisecond // … when more may be committed
	firstRetry     = 10 * time.Second      // of a delivery, doubling
	lastRetry      = 30 * time.Minute
	attemptTime    = 2 * time.Minute // of one delivery
	runEvery       = time.Second
	judges         = 2 // requests looked at at once
	deliveries     = 8 // results on their way at once, one to an AE
)

// Run gives and delivers storage commitment results until ctx ends; requests
// that were under way when the node last stopped are taken up again.
func (f *Face) Run(ctx context.Context, progress *work.Progress) error {
	return f.commits.run(ctx, progress)
}

func (c *commitments) run(ctx context.Context, progress *work.Progress) error {
	if err := c.load(); err != nil {
		return err
	}
	judging, delivering := make(chan struct{}, judges), make(chan struct{}, deliveries)
	var workers sync.WaitGroup
	defer workers.Wait()
	for {
		var changed <-chan struct{}
		if c.face.o.Changed != nil {
			changed = c.face.o.Changed() // before anything is asked about
		}
		due, wait := c.due(time.Now())
		for _, q := range due {
			c.begin(ctx, &workers, q, judging, delivering)
		}
		progress.Set(0, int64(c.face.Pending()))
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-c.wake:
		case <-changed:
			c.stir(time.Now())
		}
		timer.Stop()
	}
}

// stir has the requests that wait for their result looked at again soon.
func (c *commitments) stir(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.open {
		switch {
		case q.known:
		case q.busy:
			q.stirred = true
		default:
			if soon := q.soonLocked(now); soon.Before(q.next) {
				q.next = soon
			}
		}
	}
}

// soonLocked is when a request may be looked at again at the earliest: looking takes a
// fifth of the time at most.
func (q *request) soonLocked(now time.Time) time.Time {
	soon := q.looked.Add(max(soonLook, 4*q.took))
	if soon.Before(now) {
		return now
	}
	return soon
}

// due lists the requests for which something may be done, oldest first, and says how
// long nothing may be done for others.
func (c *commitments) due(now time.Time) (all []*request, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = runEvery
	for _, q := range c.open {
		switch {
		case q.busy:
		case q.next.After(now):
			wait = min(wait, q.next.Sub(now))
		default:
			all = append(all, q)
		}
	}
	slices.SortFunc(all, func(a, b *request) int {
		return cmp.Or(a.asked.Compare(b.asked), cmp.Compare(a.key, b.key))
	})
	return all, wait
}

// begin takes a request a step further if there is a place for that: an AE that
// does not answer holds one place, and keeps none of the others waiting.
func (c *commitments) begin(ctx context.Context, workers *sync.WaitGroup, q *request, judging, delivering chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	places, calls := judging, false
	if q.known {
		places = delivering
		calls = !q.report.usable(time.Now())
	}
	if calls && c.called[q.ae] {
		return
	}
	select {
	case places <- struct{}{}:
	default:
		return
	}
	q.busy = true
	if calls {
		c.called[q.ae] = true
	}
	workers.Go(func() {
		c.advance(ctx, q)
		<-places
		c.mu.Lock()
		q.busy = false
		if calls {
			delete(c.called, q.ae)
		}
		c.mu.Unlock()
		c.poke()
	})
}

// advance takes a request one step further: to its result, or to its delivery.
func (c *commitments) advance(ctx context.Context, q *request) {
	t, err := c.read(q.key)
	if err != nil {
		c.face.o.Log.Error("storage commitment request not read", "calling_ae", q.ae, "error", err)
		c.later(q, lastRetry)
		return
	}
	if t.Result == nil {
		c.settle(ctx, q, t)
		return
	}
	err = c.deliver(ctx, q, t)
	switch {
	case err == nil:
		c.end(q)
	case ctx.Err() != nil, errors.Is(err, errAssociationGone):
	case time.Since(t.Known) > deliverFor:
		c.face.o.Log.Error("storage commitment result given up", "calling_ae", t.AE, "tries", t.Tries, "error", err)
		c.end(q)
	default:
		wait := min(firstRetry<<min(t.Tries, 20), lastRetry)
		t.Next = time.Now().Add(wait)
		t.Tries++
		c.face.o.Log.Info("storage commitment result not delivered yet", "calling_ae", t.AE, "tries", t.Tries, "error", err)
		if err := c.save(t); err != nil {
			c.face.o.Log.Error("storage commitment request not saved", "error", err)
		}
		c.later(q, wait)
	}
}

// later puts a request off.
func (c *commitments) later(q *request, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q.next = time.Now().Add(wait)
}

// end forgets a finished request.
func (c *commitments) end(q *request) {
	if err := c.face.o.Rows.Delete(q.key); err != nil {
		c.face.o.Log.Error("storage commitment request not dropped", "error", err)
		c.later(q, lastRetry)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(q)
}

// settle gives a request its result, durably, or puts it off.
func (c *commitments) settle(ctx context.Context, q *request, t *transaction) {
	began := time.Now()
	c.mu.Lock()
	q.stirred = false
	c.mu.Unlock()
	result, err := c.judge(ctx, q, t)
	if err == nil {
		t.Result, t.Known = result, time.Now()
		if err = c.save(t); err == nil {
			c.mu.Lock()
			q.known, q.verdicts = true, nil
			c.mu.Unlock()
			return
		}
		c.face.o.Log.Error("storage commitment result not saved", "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	q.looked, q.took = now, now.Sub(began)
	q.next = now.Add(min(firstLook<<min(q.looks, 20), lastLook))
	q.looks++
	if q.stirred {
		q.next = q.soonLocked(now)
	}
}

// judge asks for every instance whether it is committed, and remembers what is
// settled; errNotYet while that is not known of all.
func (c *commitments) judge(ctx context.Context, q *request, t *transaction) (*dimse.CommitmentResult, error) {
	if len(q.verdicts) != len(t.References) {
		q.verdicts = make([]uint16, len(t.References))
	}
	open := 0
	for i, ref := range t.References {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if q.verdicts[i] == verdictOpen {
			q.verdicts[i] = c.verdict(ctx, ref, t)
		}
		if q.verdicts[i] == verdictOpen {
			open++
		}
	}
	if open > 0 {
		return nil, errNotYet
	}
	result := &dimse.CommitmentResult{Transaction: t.UID, RetrieveAE: c.face.o.Title}
	for i, ref := range t.References {
		if q.verdicts[i] == verdictCommitted {
			result.Committed = append(result.Committed, ref)
		} else {
			result.Failed = append(result.Failed, dimse.FailedReference{Reference: ref, Reason: q.verdicts[i]})
		}
	}
	return result, nil
}

// verdict asks about one instance.
func (c *commitments) verdict(ctx context.Context, ref dimse.Reference, t *transaction) uint16 {
	if !dict.IsStorageClass(ref.Class) {
		return reasonNotServed
	}
	err := c.face.o.Status.Committed(ctx, ref.Class, ref.Instance, t.AE)
	if err == nil {
		return verdictCommitted
	}
	age := time.Since(t.Asked)
	switch fault.KindOf(err) {
	case fault.NotFound:
		if errors.Is(err, archive.ErrDeleted) || age >= unknownGrace {
			return reasonUnknown
		}
	case fault.Mismatch:
		return reasonClass
	case fault.Corrupt, fault.Conflict:
		return reasonProcessing
	default:
		if age >= c.face.o.Deadline {
			return reasonResources
		}
	}
	return verdictOpen
}

// usable reports whether the request's association may still be there.
func (r reporter) usable(now time.Time) bool { return r.send != nil && now.Before(r.until) }

// deliver reports a result on the request's association if that is still there
// soon enough, else on a new one.
func (c *commitments) deliver(ctx context.Context, q *request, t *transaction) error {
	c.mu.Lock()
	report := q.report
	q.report = reporter{}
	c.mu.Unlock()
	if report.usable(time.Now()) {
		limited, cancel := context.WithDeadline(ctx, report.until)
		err := report.send(limited, t.Result)
		cancel()
		if err == nil {
			return nil
		}
		c.face.o.Log.Debug("storage commitment result not taken on its association", "calling_ae", t.AE, "error", err)
		return errAssociationGone
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	return c.call(ctx, t)
}

// errAssociationGone says that a result must go over a new association.
var errAssociationGone = errors.New("the request's association is gone")

// call reports a result on a new association (SCP role 1, SCU role 0).
func (c *commitments) call(ctx context.Context, t *transaction) error {
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
