package e2e

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

const (
	killRounds  = 5
	killSenders = 4
	// The node is killed within this time after the senders have started, which
	// is long enough for packs to be begun, ended and released.
	killWithin = 1500 * time.Millisecond
)

// packsSoon makes a node pack what has been quiet for a moment, into small
// tables, so that a kill meets every step of it.
func packsSoon(o *proc.Options) {
	o.Config = "[store]\nquiet = '100ms'\ngather = '400ms'\ntable_size = '1MiB'\n"
}

// No acknowledged instance is lost by SIGKILL, and none is there by half.
func TestKillUnderLoad(t *testing.T) {
	rounds := killRounds
	if testing.Short() {
		rounds = 2
	}
	if n, err := strconv.Atoi(os.Getenv("E2E_KILLS")); err == nil {
		rounds = n
	}
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("E2E_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("E2E_SEED=%d E2E_KILLS=%d", seed, rounds)
	chance := rand.New(rand.NewPCG(seed, 1))

	n := start(t, packsSoon)
	all := &ledger{sent: map[string]instance{}, acknowledged: map[string]bool{}}
	for round := range rounds {
		senders := make([]*sender, killSenders)
		for i := range senders {
			senders[i] = &sender{n: n, ledger: all, seed: uint64(1000 + round*killSenders + i), stow: i == killSenders-1}
		}
		n.killDuring(senders, time.Duration(chance.Int64N(int64(killWithin))), chance.IntN(2) == 0)
		n.restart()
		studies := make([]string, 0, killSenders)
		for _, s := range senders {
			s.again()
			studies = append(studies, dimsetest.CT(s.seed, 0).StudyInstanceUID)
		}
		all.check(n, studies)
		if rounds <= killRounds || round%5 == 4 {
			n.verifyClean()
		}
		if t.Failed() {
			t.Fatalf("round %d of seed %d", round, seed)
		}
	}
	if len(all.acknowledged) < rounds*killSenders {
		t.Errorf("only %d instances were acknowledged", len(all.acknowledged))
	}
	n.pack()
	var studies []string
	for i := range rounds * killSenders {
		studies = append(studies, dimsetest.CT(uint64(1000+i), 0).StudyInstanceUID)
	}
	all.check(n, studies)
	report := n.verifyClean()
	t.Logf("%d acknowledged, %d sent, %d at rest, %d packs", len(all.acknowledged), len(all.sent), report.Instances, report.Packs)
}

// killDuring lets the senders send and kills the node after some time, perhaps
// while it is told to pack.
func (n *node) killDuring(senders []*sender, after time.Duration, packing bool) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(n.t.Context())
	defer cancel()
	var group sync.WaitGroup
	for _, s := range senders {
		group.Go(func() { s.run(ctx) })
	}
	if packing {
		group.Go(func() {
			for ctx.Err() == nil {
				answer, err := n.try(http.MethodPost, "/api/pack", nil, nil)
				if err != nil {
					return // killed
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
			}
		})
	}
	time.Sleep(after) // the moment is the point: there is no event to wait for
	n.kill()
	cancel()
	group.Wait()
}

// ledger knows what was sent and what the node has acknowledged.
type ledger struct {
	mu           sync.Mutex
	sent         map[string]instance
	acknowledged map[string]bool
}

func (l *ledger) send(in instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[in.sop] = in
}

func (l *ledger) acknowledge(in instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged[in.sop] = true
}

// check retrieves studies whole, half of them over each protocol: all that was
// acknowledged must be there, and all that is there must be what was sent.
func (l *ledger) check(n *node, studies []string) {
	n.t.Helper()
	for i, study := range studies {
		of := []instance{}
		for _, in := range l.sent {
			if in.study == study {
				of = append(of, in)
			}
		}
		if len(of) == 0 {
			continue
		}
		var got *arrivals
		if acknowledged := l.acknowledgedOf(of); acknowledged == 0 && !n.holds(study) {
			continue
		}
		if i%2 == 0 {
			got = n.cget(of)
		} else {
			got = n.wado(of)
		}
		for _, in := range of {
			arrived, there := got.seen[in.sop]
			switch {
			case l.acknowledged[in.sop] && !there:
				n.t.Errorf("instance %s was acknowledged and is lost", in.name)
			case there && (arrived.hash != in.hash || arrived.syntax != in.syntax):
				n.t.Errorf("instance %s is not what was sent", in.name)
			}
		}
		if len(got.seen) > len(of) || len(got.more) > 0 {
			n.t.Errorf("study %s: %d instances, %d twice, of %d sent", study, len(got.seen), len(got.more), len(of))
		}
	}
}

func (l *ledger) acknowledgedOf(all []instance) (count int) {
	for _, in := range all {
		if l.acknowledged[in.sop] {
			count++
		}
	}
	return count
}

// holds reports whether a study can be found.
func (n *node) holds(study string) bool {
	n.t.Helper()
	var found []any
	n.call(http.MethodGet, "/dicom-web/studies?StudyInstanceUID="+study, nil, &found)
	return len(found) > 0
}

// sender stores instances of a study of its own until the
// node has gone, over C-STORE or STOW-RS.
type sender struct {
	n      *node
	ledger *ledger
	seed   uint64
	stow   bool
	pause  time.Duration // between instances
	last   *instance     // sent without an answer
}

// next is the numberth instance: most small, some as large as a CT slice.
func (s *sender) next(number int) instance {
	i := dimsetest.CT(s.seed, number)
	switch number % 8 {
	case 0:
	case 1, 2, 3:
		i.Rows, i.Columns = 8, 8
	default:
		i.Rows, i.Columns = 128, 96
	}
	return made(i)
}

func (s *sender) run(ctx context.Context) {
	store, end, err := s.connect(ctx)
	if err != nil {
		return // the node was killed before
	}
	defer end()
	for number := 0; ctx.Err() == nil; number++ {
		in := s.next(number)
		s.ledger.send(in)
		if err := store(ctx, in); err != nil {
			s.last = &in
			return
		}
		s.ledger.acknowledge(in)
		if s.pause > 0 {
			time.Sleep(s.pause) // a modality that makes images as it goes
		}
	}
}

// connect returns how to store.
func (s *sender) connect(ctx context.Context) (store func(context.Context, instance) error, end func(), err error) {
	if s.stow {
		base, token := s.n.HTTP(), s.n.Token()
		return func(ctx context.Context, in instance) error { return post(ctx, base, token, in) }, func() {}, nil
	}
	client, err := scu.Dial(ctx, s.n.target(fmt.Sprint("SENDER", s.seed)), scu.Proposal{Contexts: scu.StorePlan([]scu.Kind{s.next(0).kind()})[0]})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context, in instance) error {
		_, err := client.Send(ctx, in.outgoing(), scu.Originator{})
		return err
	}, func() { _ = client.Abort() }, nil // the node is gone by then
}

// again sends what got no answer once more, as every modality does.
func (s *sender) again() {
	s.n.t.Helper()
	if s.last == nil {
		return
	}
	store, end, err := s.connect(s.n.t.Context())
	if err != nil {
		s.n.t.Errorf("after the restart: %v", err)
		return
	}
	defer end()
	if err := store(s.n.t.Context(), *s.last); err != nil {
		s.n.t.Errorf("sending again: %v", err)
		return
	}
	s.ledger.acknowledge(*s.last)
}

// post stores one file over STOW-RS.
func post(ctx context.Context, base, token string, in instance) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/dicom-web/studies", in.reader())
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/dicom")
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return &httpStatus{answer.StatusCode}
	}
	return nil
}

// httpStatus is an answer other than 200.
type httpStatus struct{ code int }

func (s *httpStatus) Error() string { return "HTTP status " + strconv.Itoa(s.code) }
