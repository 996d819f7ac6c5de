package ae

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/scp"
)

// Status tells whether an instance is committed. nil: it survives the loss of
// as many sites as the network promises. fault.NotFound: unknown, or deleted
// (archive.ErrDeleted); Mismatch: another class; Conflict: this sender's last
// version is quarantined; Corrupt; any other kind: not known yet, ask again.
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

// Limits of what is under way. Requests rest in rows; in memory there are two
// bytes for each reference.
const (
	maxReferences     = 100_000   // of one request
	maxRequests       = 10_000    // at once
	maxOpenReferences = 4_000_000 // of all requests
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
	Known      time.Time               `json:"known,omitzero"`   // since when
	Tries      int                     `json:"tries,omitempty"`
	Next       time.Time               `json:"next,omitzero"` // of delivery
}

func transactionKey(ae, uid string) string { return ae + "\x00" + uid }

// request is what is kept in memory of a transaction.
type request struct {
	key, ae  string
	asked    time.Time
	count    int // references
	settled  chan struct{}
	failed   error // of the row; read once settled is closed
	verdicts []uint16

	// Guarded by commitments.mu.
	known   bool      // has its result
	busy    bool      // somebody works on it
	next    time.Time // when it is looked at again
	looks   int       // at its instances, without a result
	looked  time.Time // when the last look ended, which took
	took    time.Duration
	stirred bool // more may be committed than when the present look began
	report  reporter
}

// reporter sends a result on the association of its request.
type reporter struct {
	send  func(context.Context, *dimse.CommitmentResult) error
	until time.Time
}

// commitments drives requests to their results.
type commitments struct {
	face *Face
	wake chan struct{}

	mu         sync.Mutex
	open       map[string]*request
	references int             // of all that are open
	called     map[string]bool // AEs to which a result is on its way
}

func newCommitments(f *Face) *commitments {
	return &commitments{
		face: f, wake: make(chan struct{}, 1), open: map[string]*request{}, called: map[string]bool{},
	}
}

// Commit implements [scp.Committer]: the request is durable when it returns.
func (s *session) Commit(_ context.Context, r *scp.CommitRequest) error {
	err := s.face.commits.take(s.caller.Title, r)
	e := Event{Action: Committed, AE: s.caller.Title, Remote: s.remote, Instances: len(r.References)}
	if err != nil {
		e.Failed, e.Why = true, err.Error()
	}
	s.face.o.Audit(e)
	status, _ := dimse.StatusOf(dimse.Commit, err)
	s.face.o.Observe("N-ACTION", uint16(status), 0, 0)
	return err
}

// take makes a request durable. The same request again, while it is under way,
// is answered alike and has one result; a transaction UID that is in use for
// other instances is refused.
func (c *commitments) take(ae string, r *scp.CommitRequest) error {
	key := transactionKey(ae, r.Transaction)
	report := reporter{send: r.Report, until: time.Now().Add(sameAssoc)}
	for {
		q, mine, err := c.enter(key, ae, len(r.References), report)
		if err != nil {
			return err
		}
		if mine {
			return c.write(q, r)
		}
		<-q.settled // its row is being written
		if q.failed != nil {
			continue // then it is not under way
		}
		if err := c.repeated(q, r, report); !fault.Is(err, fault.NotFound) {
			return err
		} // else it has just ended
	}
}

// enter finds the request under a key or makes it.
func (c *commitments) enter(key, ae string, references int, report reporter) (q *request, mine bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q, ok := c.open[key]; ok {
		return q, false, nil
	}
	switch {
	case references > maxReferences:
		return nil, false, fault.New(fault.Full, "%d references in one storage commitment request", references)
	case len(c.open) >= maxRequests || c.references+references > maxOpenReferences:
		return nil, false, fault.New(fault.Full, "%d storage commitment requests for %d instances are under way", len(c.open), c.references)
	}
	q = &request{key: key, ae: ae, asked: time.Now(), count: references, settled: make(chan struct{}), busy: true, report: report}
	c.open[key] = q
	c.references += references
	return q, true, nil
}

// write makes a new request durable.
func (c *commitments) write(q *request, r *scp.CommitRequest) error {
	err := c.save(&transaction{
		Version: recordVersion, AE: q.ae, UID: r.Transaction, References: r.References, Asked: q.asked,
	})
	c.mu.Lock()
	if q.failed = err; err != nil {
		c.dropLocked(q)
	}
	q.busy = false
	c.mu.Unlock()
	close(q.settled)
	c.poke()
	return err
}

// repeated answers a request whose transaction UID is under way.
func (c *commitments) repeated(q *request, r *scp.CommitRequest, report reporter) error {
	t, err := c.read(q.key)
	if err != nil {
		return err
	}
	if !slices.Equal(t.References, r.References) {
		return &dimse.StatusError{Status: statusDuplicateTransaction, Comment: "transaction UID in use"}
	}
	c.mu.Lock()
	q.report = report // the association that asked last
	if !q.busy {
		q.next = time.Time{}
	}
	c.mu.Unlock()
	c.poke()
	return nil
}

func (c *commitments) dropLocked(q *request) {
	if c.open[q.key] == q {
		delete(c.open, q.key)
		c.references -= q.count
	}
}

// poke wakes run.
func (c *commitments) poke() {
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
	return c.face.o.Rows.Put(transactionKey(t.AE, t.UID), value)
}

func (c *commitments) read(key string) (*transaction, error) {
	value, ok, err := c.face.o.Rows.Get(key)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.NotFound, "the storage commitment request has ended")
	}
	return parseTransaction(value)
}

func parseTransaction(value []byte) (*transaction, error) {
	t := &transaction{}
	if err := json.Unmarshal(value, t); err != nil {
		return nil, fault.New(fault.Corrupt, "storage commitment request: %w", err)
	}
	if t.Version > recordVersion {
		return nil, fault.New(fault.Unsupported, "storage commitment request of version %d, newer than %d", t.Version, recordVersion)
	}
	if t.Result != nil && t.Known.IsZero() {
		t.Known = t.Asked
	}
	return t, nil
}

// load takes up the requests of an earlier run. One that does not parse stays
// where it is, and keeps nobody else waiting.
func (c *commitments) load() error {
	settled := make(chan struct{})
	close(settled)
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.face.o.Rows.Each(func(key string, value []byte) error {
		t, err := parseTransaction(value)
		if err == nil && transactionKey(t.AE, t.UID) != key {
			err = fault.New(fault.Corrupt, "storage commitment request under another's key")
		}
		if err != nil {
			c.face.o.Log.Error("a storage commitment request is left aside", "error", err)
			return nil
		}
		if _, ok := c.open[key]; !ok {
			c.open[key] = &request{
				key: key, ae: t.AE, asked: t.Asked, count: len(t.References), settled: settled,
				known: t.Result != nil, next: t.Next,
			}
			c.references += len(t.References)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("storage commitment requests: %w", err)
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

// errNotYet says that a result cannot be given yet.
var errNotYet = errors.New("not all instances are settled")
