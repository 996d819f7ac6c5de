package scp

import (
	"sync"

	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

const (
	tagFailedUIDs dict.Tag = 0x00080058

	// maxFailedUIDs bounds the list of a final response: as many as its counts
	// can express.
	maxFailedUIDs = 65535
)

// progress counts the sub-operations of a retrieval.
type progress struct {
	moved chan struct{} // has an element when a sub-operation has ended

	mu                               sync.Mutex // guards what is below
	total, completed, failed, warned int
	failedUIDs                       []string
}

func newProgress() *progress { return &progress{moved: make(chan struct{}, 1)} }

// expect sets the number of sub-operations.
func (p *progress) expect(total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
}

// done counts one sub-operation, of an instance whose UID may not be known: failed
// when err is set or the status is a failure, a warning for Bxxx, else completed.
func (p *progress) done(uid string, status command.Status, err error) {
	p.mu.Lock()
	switch {
	case err != nil || status.IsFailure():
		p.failed++
		if uid != "" && len(p.failedUIDs) < maxFailedUIDs {
			p.failedUIDs = append(p.failedUIDs, uid)
		}
	case status.IsWarning():
		p.warned++
	default:
		p.completed++
	}
	p.mu.Unlock()
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

func (p *progress) remainingLocked() int {
	return max(0, p.total-p.completed-p.failed-p.warned)
}

// fill puts the counts into a response. Remaining stands in pending and
// canceled ones only (PS3.7 table 9.1-3, 9.1-4).
func (p *progress) fill(set *command.Set, remaining bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	set.Completed = saturated(p.completed)
	set.Failed = saturated(p.failed)
	set.Warning = saturated(p.warned)
	if remaining {
		set.Remaining = saturated(p.remainingLocked())
	}
}

// saturated returns a count as far as 16 bits hold it.
func saturated(n int) *uint16 {
	count := uint16(min(n, 65535))
	return &count
}

// outcome decides the final status: FE00 when it was canceled with something
// left to do; what the table says of an error that stopped the whole, or B000
// if something was sent before; else 0000, A702 when nothing but failures came
// of it, and B000 in between. Nothing found is nothing to send. What an error
// left undone counts as failed.
func (p *progress) outcome(o dimse.Operation, err error) (Outcome, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status, comment := dimse.StatusOf(o, err)
	sent := p.completed + p.warned
	switch {
	case status == command.Cancel:
	case status.IsFailure():
		p.failed += p.remainingLocked()
		if sent > 0 {
			status = dimse.SubsCompleteWithFailures
		}
	case p.failed == 0 && p.warned == 0:
		status = command.Success
	case sent == 0:
		status, comment = dimse.UnableToPerformSubs, "all sub-operations failed"
	default:
		status = dimse.SubsCompleteWithFailures
	}
	return Outcome{
		Status: status, Remaining: p.remainingLocked(),
		Completed: p.completed, Failed: p.failed, Warning: p.warned,
	}, comment
}

// failedIdentifier returns the Failed SOP Instance UID List, or nil when empty.
func (p *progress) failedIdentifier() *dicom.Dataset {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.failedUIDs) == 0 {
		return nil
	}
	d := dicom.NewDataset()
	d.Remove(0x00080005) // UIDs need no character set
	d.Set(tagFailedUIDs, dict.UI, p.failedUIDs...)
	return d
}
