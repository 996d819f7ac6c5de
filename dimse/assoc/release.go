package assoc

import (
	"context"
	"errors"
	"io"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/pdu"
)

// releaseAsked answers an A-RELEASE-RQ: a data set being sent is finished first.
// io.EOF when that ends the association, nil in a release collision, in which
// the peer's A-RELEASE-RP is still to come (PS3.8 §7.2.2.7). The caller has the
// right to read.
func (a *Association) releaseAsked() error {
	a.mu.Lock()
	collided := a.state == sta9
	late := a.state == sta10 // the acceptor answers after the requestor has (AR-10)
	a.mu.Unlock()
	switch {
	case late:
		return nil
	case !collided:
		_, err := a.happen(evt14, io.EOF) // AR-4: finish sends the reply
		return err
	}
	if _, err := a.happen(evt14, nil); err != nil { // AR-9
		return err
	}
	if err := a.claim(context.Background(), a.writing); err != nil {
		return err
	}
	defer func() { <-a.writing }()
	return a.write(pdu.AppendReleaseRP(nil))
}

// Release performs an orderly release as requestor and closes the connection.
// A message being sent goes out first; what the peer still sends is dropped
// unless a Receive waits for it. A peer that does not answer within ARTIM is aborted.
// Releasing what has been released is nil.
func (a *Association) Release(ctx context.Context) error {
	if err := a.release(ctx); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// release returns io.EOF once the association is released.
func (a *Association) release(ctx context.Context) error {
	if err := a.claim(ctx, a.writing); err != nil {
		return err
	}
	stop := a.watch(ctx)
	err := a.sendRelease()
	<-a.writing
	if err == nil {
		err = a.awaitRelease()
	}
	err = a.ended(err)
	_ = a.unwatch(stop) // the association has ended one way or the other
	return err
}

// sendRelease sends A-RELEASE-RQ, behind messages that wait. The caller has the
// right to write.
func (a *Association) sendRelease() error {
	if err := a.flushWhole(); err != nil {
		return err
	}
	a.mu.Lock()
	if _, err := a.happenLocked(evt11, nil); err != nil { // AR-1
		a.mu.Unlock()
		return err
	}
	a.timer = time.Now().Add(a.config.ARTIM)
	// Whoever reads now waits no longer than that. An error shows when he does.
	_ = a.conn.SetReadDeadline(a.timer)
	a.mu.Unlock()
	return a.write(pdu.AppendReleaseRQ(nil))
}

// awaitRelease reads until the association has ended, or lets whoever reads
// already do that.
func (a *Association) awaitRelease() error {
	patience := time.NewTimer(a.config.ARTIM + abortLinger)
	defer patience.Stop()
	select {
	case <-a.done:
		return a.Err()
	case <-patience.C: // whoever reads should have ended it by now
		_, err := a.happen(evt15, aborted(fault.Unavailable, Aborted{Source: abortByUser}, "no A-RELEASE-RP: time is up"))
		return err
	case a.reading <- struct{}{}:
	}
	defer func() { <-a.reading }()
	if err := a.skipData(); err != nil {
		return err
	}
	for {
		if err := a.nextFragment(forPDU); err != nil {
			return err
		}
		for a.in.left > 0 {
			if _, err := a.fragment(); err != nil {
				return err
			}
		}
	}
}
