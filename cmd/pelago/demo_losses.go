package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/pause"
	"pelago/dimse"
	"pelago/dimse/scu"
	"pelago/node/admin"
)

const (
	// safeWait bounds the spreading of what was stored, and the rebuilding of what
	// burnt, of a demonstration's few megabytes.
	safeWait = 4 * time.Minute
	// tellEvery is how often a step that waits says how far it is.
	tellEvery = 2 * time.Second
	// leastLosses is from how many sites on a demonstration goes beyond losses that
	// leave a majority: of fewer the founder alone votes.
	leastLosses = 3
)

// losses are the steps in which sites burn: every study stays whole.
func (d *demo) losses() []demoStep {
	steps := []demoStep{
		{"spread all studies over the sites", func(ctx context.Context) (string, error) { return d.protected(ctx) }},
		{"ask whether a study may be deleted at its modality", d.commit},
	}
	if len(d.sites) < leastLosses {
		return steps
	}
	return append(steps,
		demoStep{"kill as many sites as may be lost, for good", d.burn},
		demoStep{"open every study at a survivor, WADO-RS", d.survive},
		demoStep{"say that they are lost; an empty site joins", d.replace},
		demoStep{"all studies are protected again", d.rebuilt},
		demoStep{"kill sites until nobody has a majority", d.unlead},
		demoStep{"read and store without one", d.unled},
		demoStep{"recover the network at a survivor", d.recover},
	)
}

// there are the sites whose nodes run.
func (d *demo) there() []*demoSite {
	return slices.DeleteFunc(slices.Clone(d.sites), func(s *demoSite) bool { return slices.Contains(d.burnt, s) })
}

// protected waits until every study is protected, as the last site that runs says.
func (d *demo) protected(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, safeWait)
	defer cancel()
	there := d.there()
	for _, s := range there {
		if err := s.client.call(ctx, http.MethodPost, "/api/pack", nil, nil); err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
	}
	asks := there[len(there)-1]
	told := time.Now()
	left := slices.Clone(d.images.studies)
	for {
		var survives int
		var state string
		for len(left) > 0 {
			var p admin.Protection
			if err := asks.client.get(ctx, "/api/studies/"+left[0].uid+"/protection", &p); err != nil {
				return "", fmt.Errorf("%s: %w", asks.name, err)
			}
			if state = p.State; state != "protected" {
				break
			}
			survives, left = p.SurvivesSites, left[1:]
		}
		if len(left) == 0 {
			return fmt.Sprintf("%d studies survive the loss of any %d sites", len(d.images.studies), survives), nil
		}
		if time.Since(told) > tellEvery {
			told = time.Now()
			d.say(fmt.Sprintf("%d of %d studies; the next one is %s", len(d.images.studies)-len(left), len(d.images.studies), state))
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return "", fault.New(fault.Unavailable, "%d studies are not protected after %v: the next one is %s", len(left), safeWait, state)
		}
	}
}

// rebuilt waits until the sites that are there hold all that the network's layout of
// them gives them, and have its keys.
func (d *demo) rebuilt(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, safeWait)
	defer cancel()
	there := d.there()
	told := time.Now()
	for _, s := range there {
		for {
			st, err := s.status(ctx)
			if err != nil {
				return "", err
			}
			if st.Layout.Code.Sites == len(there) && st.Layout.From == 0 && st.Repair.Queued+st.Repair.Running == 0 && st.EpochsHeld > 0 && st.EpochsLacking == 0 {
				break
			}
			if time.Since(told) > tellEvery {
				told = time.Now()
				d.say(fmt.Sprintf("%s: %d shards to be brought, %d are on their way", s.name, st.Repair.Queued, st.Repair.Running))
			}
			if !pause.For(ctx, look) {
				return "", fault.New(fault.Unavailable, "%s does not have its part after %v", s.name, safeWait)
			}
		}
	}
	return d.protected(ctx)
}

// commit asks for storage commitment of the last study, as the modality would that
// made it.
func (d *demo) commit(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, safeWait)
	defer cancel()
	s := d.there()[0]
	one := s.stored[len(s.stored)-1]
	results := make(chan *dimse.CommitmentResult, 1)
	target := s.target()
	target.Committed = func(_ context.Context, r *dimse.CommitmentResult) error {
		results <- r
		return nil
	}
	transaction, err := newUID()
	if err != nil {
		return "", err
	}
	request := &dimse.CommitmentRequest{Transaction: transaction}
	for _, name := range one.files {
		in, err := outgoing(name)
		if err != nil {
			return "", err
		}
		request.References = append(request.References, dimse.Reference{Class: in.Class, Instance: in.UID})
	}
	client, err := scu.Dial(ctx, target, scu.ProposeCommitment())
	if err != nil {
		return "", err
	}
	began := time.Now()
	if err := client.RequestCommitment(ctx, request); err != nil {
		return "", errors.Join(err, client.Abort())
	}
	select {
	case r := <-results:
		if len(r.Failed) > 0 || len(r.Committed) != len(request.References) {
			return "", errors.Join(fault.New(fault.Unavailable, "%d of %d instances are not committed", len(r.Failed), len(request.References)), client.Abort())
		}
		return fmt.Sprintf("yes, all %d instances, %.2f s after it asked", len(r.Committed), time.Since(began).Seconds()), client.Release(ctx)
	case <-ctx.Done():
		return "", errors.Join(fault.New(fault.Unavailable, "no storage commitment result"), client.Abort())
	}
}

// burn kills the sites that the network may lose, the one that leads among them.
// All of them stored studies. So many must vote that the others decide on: who came
// back a moment ago gets its vote after a while.
func (d *demo) burn(ctx context.Context) (string, error) {
	var st admin.Status
	for began := time.Now(); ; {
		var err error
		if st, err = d.sites[0].status(ctx); err != nil {
			return "", err
		}
		if voters(st) >= 2*st.SurvivesSites+1 {
			break
		}
		if time.Since(began) > safeWait || !pause.For(ctx, look) {
			return "", fault.New(fault.Unavailable, "%d sites vote after %v", voters(st), safeWait)
		}
	}
	leads := d.leader(st)
	for _, s := range append([]*demoSite{leads}, d.sites...) {
		if len(d.burnt) < st.SurvivesSites && !slices.Contains(d.burnt, s) {
			if err := s.node.Kill(); err != nil {
				return "", err
			}
			d.burnt = append(d.burnt, s)
		}
	}
	gone := 0
	for _, s := range d.burnt {
		gone += len(s.stored)
	}
	return fmt.Sprintf("%s, where %d of %d studies were stored", names(d.burnt), gone, len(d.images.studies)), nil
}

// leader is the site that a node says leads; any if it knows of none.
func (d *demo) leader(st admin.Status) *demoSite {
	for _, site := range st.Sites {
		for _, n := range site.Nodes {
			if n.Leader {
				return d.site(site.Name)
			}
		}
	}
	return d.there()[0]
}

func names(sites []*demoSite) string {
	var all []string
	for _, s := range sites {
		all = append(all, s.name)
	}
	return strings.Join(all, " and ")
}

// survive opens everything at the last site that runs.
func (d *demo) survive(ctx context.Context) (string, error) {
	there := d.there()
	s := there[len(there)-1]
	if err := s.wado(ctx, d.images, d.images.studies...); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d instances of %d studies at %s, byte for byte", files(d.images.studies), len(d.images.studies), s.name), nil
}

// replace has an operator say which sites are lost, and starts an empty one.
func (d *demo) replace(ctx context.Context) (string, error) {
	by := d.there()[0]
	for _, s := range d.burnt {
		said, err := by.node.Command(ctx, "lost", "--data", by.node.Data(), s.name)
		if err == nil && said.Code != 0 {
			err = fault.New(fault.Other, "pelago lost: %s", lastLine(said.Stderr))
		}
		if err != nil {
			return "", err
		}
	}
	fresh := newDemoSite(d.e, d.dir, demoSites[len(d.sites)], len(d.sites))
	d.sites = append(d.sites, fresh)
	began := time.Now()
	if err := fresh.join(ctx, by); err != nil {
		return "", fmt.Errorf("%s: %w", fresh.name, err)
	}
	return fmt.Sprintf("%s are lost; %s is ready after %.1f s", names(d.burnt), fresh.name, time.Since(began).Seconds()), nil
}

// unlead kills sites, the one that leads first, until the others have no leader.
func (d *demo) unlead(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, safeWait)
	defer cancel()
	had := len(d.burnt)
	for {
		st, err := d.survivor().status(ctx)
		if err != nil {
			return "", err
		}
		if st.Leader == "" && len(d.burnt) > had {
			return fmt.Sprintf("%s; %s are left", names(d.burnt[had:]), names(d.there())), nil
		}
		if leads := d.leader(st); st.Leader != "" && !slices.Contains(d.burnt, leads) {
			if len(d.there()) <= 1 {
				return "", fault.New(fault.Conflict, "the last site goes on as a majority")
			}
			if err := leads.node.Kill(); err != nil {
				return "", err
			}
			d.burnt = append(d.burnt, leads)
		}
		select {
		case <-time.After(unledWait):
		case <-ctx.Done():
			return "", fault.New(fault.Unavailable, "the sites that are left still name a leader after %v", safeWait)
		}
	}
}

// unledWait is what the others get to choose a leader, or to find that they cannot.
const unledWait = 5 * time.Second

// survivor is a site that runs.
func (d *demo) survivor() *demoSite {
	there := d.there()
	return there[len(there)-1]
}

// unled opens everything and stores without a majority.
func (d *demo) unled(ctx context.Context) (string, error) {
	said, err := d.survive(ctx)
	if err != nil {
		return "", err
	}
	made, err := d.images.make(meanwhileSlices)
	if err != nil {
		return "", err
	}
	s := d.survivor()
	if err := s.store(ctx, d.images, made); err != nil {
		return "", err
	}
	_, err = s.get(ctx, d.images, made)
	return said + fmt.Sprintf("; %d stored there", len(made.files)), err
}

// recover makes a survivor the only voter, and waits until all that are left agree.
func (d *demo) recover(ctx context.Context) (string, error) {
	there := d.there()
	var best *demoSite
	var most recoverable
	for _, s := range there {
		if err := s.stop(); err != nil {
			return "", err
		}
		said, err := s.node.Command(ctx, "recover", "--dry-run", "--json", "--data", s.node.Data())
		if err != nil {
			return "", err
		}
		var r recoverable
		if err := json.Unmarshal([]byte(said.Stdout), &r); err != nil {
			return "", fmt.Errorf("pelago recover: %w: %s", err, lastLine(said.Stderr))
		}
		if best == nil || r.after(most) {
			best, most = s, r
		}
	}
	if said, err := best.node.Command(ctx, "recover", "--yes", "--data", best.node.Data()); err != nil || said.Code != 0 {
		return "", errors.Join(err, fault.New(fault.Other, "pelago recover: %s", lastLine(said.Stderr)))
	}
	for _, s := range append([]*demoSite{best}, slices.DeleteFunc(slices.Clone(there), func(s *demoSite) bool { return s == best })...) {
		if err := s.again(ctx); err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
	}
	said, err := d.everywhere(ctx, there)
	return fmt.Sprintf("at %s; %s", best.name, said), err
}

// recoverable is how much of the network's log a survivor has.
type recoverable struct {
	Generation uint64 `json:"generation"`
	Election   uint64 `json:"election"`
	Last       uint64 `json:"last_index"`
}

// after reports whether it has more than another.
func (r recoverable) after(o recoverable) bool {
	a, b := []uint64{r.Generation, r.Election, r.Last}, []uint64{o.Generation, o.Election, o.Last}
	return slices.Compare(a, b) > 0
}
