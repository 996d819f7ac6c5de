package e2e

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"pelago/chaos/check"
	wan "pelago/chaos/world"
	"pelago/node/admin"
)

// history is what was seen of a network, by people who look again and again at
// each of its sites.
type history struct {
	mu     sync.Mutex
	owners map[string]wan.Site // of studies
	known  map[string]uint64   // the highest version of each fact
	states check.States
	fresh  check.Staleness
}

// owned says at which site a study arrives. What other sites show of it was
// committed: only its own may see more.
func (h *history) owned(study string, by wan.Site) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.owners[study] = by
}

// answered records the answer to a search, which has come by now.
func (h *history) answered(at wan.Site, a search) {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	a.Node = check.Node(at)
	h.fresh.Answers = append(h.fresh.Answers, a.Answer)
	for study, count := range a.Versions {
		if h.owners[study] != at && count > h.known[study] {
			h.known[study] = count
			h.fresh.Facts = append(h.fresh.Facts, check.Fact{Key: study, Version: count, Committed: now})
		}
	}
}

// stood records the state of a node.
func (h *history) stood(at wan.Site, is admin.Status) error {
	b, err := hex.DecodeString(is.StateHash)
	if err != nil || len(b) != 32 {
		return fmt.Errorf("a state hash %q", is.StateHash)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.states = append(h.states, check.State{Node: check.Node(at), Index: is.StateIndex, Hash: check.Hash(b)})
	return nil
}

// check returns where what was seen breaks a promise, and how much was seen.
func (h *history) check() (violations []check.Violation, states, answers, facts int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(h.states.Check(), h.fresh.Check()...), len(h.states), len(h.fresh.Answers), len(h.fresh.Facts)
}

// search is the answer to a search for all studies.
type search struct {
	check.Answer
	studies int      // that are listed
	unheard []string // sites
}

// stale is how answers say how old they may be; whole seconds and tenths, rounded
// up.
var stale = regexp.MustCompile(`what other sites stored in the last (\S+) may be missing`)

// unheard is how answers name sites of which they know only what was told before.
var unheard = regexp.MustCompile(`these sites have not been heard lately, what they stored since may be missing: ([^"]+)`)

// find searches a node for all studies, with the number of instances of each; more
// are header fields, each followed by its value.
func (n *node) find(ctx context.Context, more ...string) (a search, err error) {
	a.Known, a.Versions = true, map[string]uint64{}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP()+"/dicom-web/studies?includefield=00201208&limit=10000", nil)
	if err != nil {
		return a, err
	}
	r.Header.Set("Authorization", "Bearer "+n.Token())
	r.Header.Set("Accept", "application/dicom+json")
	for i := 0; i < len(more); i += 2 {
		r.Header.Add(more[i], more[i+1])
	}
	a.Asked = time.Now()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, err
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return a, err
	}
	for _, warning := range answer.Header.Values("Warning") {
		if m := unheard.FindStringSubmatch(warning); m != nil {
			a.unheard = strings.Split(m[1], ", ")
			continue
		}
		m := stale.FindStringSubmatch(warning)
		if m == nil { // that nobody can tell, or that a site is silent
			a.Known = false
			continue
		}
		if a.Staleness, err = time.ParseDuration(m[1]); err != nil {
			return a, err
		}
	}
	switch answer.StatusCode {
	case http.StatusOK:
		err = a.read(body)
	case http.StatusNoContent:
	default:
		err = &httpStatus{answer.StatusCode}
	}
	return a, err
}

// read reads the studies of an answer.
func (a *search) read(body []byte) error {
	var list []map[string]struct{ Value []any }
	if err := json.Unmarshal(body, &list); err != nil {
		return err
	}
	for _, study := range list {
		uid, count := study["0020000D"].Value, study["00201208"].Value
		if len(uid) != 1 || len(count) != 1 {
			return fmt.Errorf("a study %v with %v instances", uid, count)
		}
		number, ok := count[0].(float64)
		if !ok {
			return fmt.Errorf("a study with %v instances", count)
		}
		a.studies++
		a.Versions[fmt.Sprint(uid[0])] = uint64(number)
	}
	return nil
}

// Pauses between looks, and how long a look may take: nodes are stopped while they
// are looked at.
const (
	lookEvery = 150 * time.Millisecond
	lookTime  = 30 * time.Second
)

// watch looks at a node until unwatch.
func (s *site) watch(h *history) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s.look(ctx, h)
			select {
			case <-ctx.Done():
			case <-time.After(lookEvery):
			}
		}
	}()
	s.watched = func() {
		cancel()
		<-done
	}
}

func (s *site) unwatch() {
	if s.watched != nil {
		s.watched()
		s.watched = nil
	}
}

// look sees what a node says. One that does not answer has not lied.
func (s *site) look(ctx context.Context, h *history) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if a, err := s.find(ctx); err == nil {
		h.answered(s.name, a)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.HTTP()+"/api/status", nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	r.Header.Set("Authorization", "Bearer "+s.Token())
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	var is admin.Status
	if json.NewDecoder(answer.Body).Decode(&is) != nil || answer.StatusCode != http.StatusOK {
		return
	}
	if err := h.stood(s.name, is); err != nil {
		s.t.Errorf("%s: %v", s.name, err)
	}
}
