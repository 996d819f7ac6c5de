package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/node/admin"
)

const (
	// siteSlices are those of the study that is drawn for each site, and
	// meanwhileSlices of one that is made while a site is away.
	siteSlices, meanwhileSlices = 20, 10
	// spreads is how long what was stored at one site may take to be found at
	// all others; it takes about a second on machines that do nothing else.
	spreads = 2 * time.Minute
	look    = 50 * time.Millisecond
)

// network is the demonstration of several sites: what is stored at one is found
// and opened at all, also while one of them is away, and when some have burnt.
func (d *demo) network() []demoStep {
	return append([]demoStep{
		{fmt.Sprintf("found a network at site %s", d.sites[0].name), func(ctx context.Context) (string, error) {
			return ready(func() error { return d.sites[0].start(ctx) })
		}},
		{fmt.Sprintf("%d more join it, each with a token", len(d.sites)-1), d.join},
		{"gather images", d.gather},
		{"store studies at all sites over C-STORE", d.store},
		{"find all of them everywhere, C-FIND and QIDO-RS", func(ctx context.Context) (string, error) {
			return d.everywhere(ctx, d.sites)
		}},
		{"open each at another site, C-MOVE to a workstation", d.move},
		{"open each at a third site, WADO-RS", d.wado},
		{"kill a site (SIGKILL): the one that leads, if it may", d.kill},
		{"store, find and open while it is away", d.meanwhile},
		{"start it again: it catches up", d.back},
		{"store there, find it everywhere", func(ctx context.Context) (string, error) {
			made, err := d.images.make(meanwhileSlices)
			if err != nil {
				return "", err
			}
			if err := d.away.store(ctx, d.images, made); err != nil {
				return "", err
			}
			return d.everywhere(ctx, d.sites)
		}},
		{"pack what was stored, verify all of it at every site", d.verify},
	}, d.losses()...)
}

// join starts the other sites' nodes, one after the other, as operators would.
func (d *demo) join(ctx context.Context) (string, error) {
	var took []string
	for _, s := range d.sites[1:] {
		began := time.Now()
		if err := s.join(ctx, d.sites[0]); err != nil {
			return "", fmt.Errorf("%s: %w", s.name, err)
		}
		took = append(took, fmt.Sprintf("%s %.1f s", s.name, time.Since(began).Seconds()))
	}
	return "ready after: " + strings.Join(took, ", "), nil
}

func (d *demo) gather(context.Context) (string, error) {
	if err := d.images.gather(d.samples); err != nil {
		return "", err
	}
	found := files(d.images.studies)
	for range d.sites {
		if _, err := d.images.make(siteSlices); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d studies: %d real files, and made %d CT slices", len(d.images.studies), found, siteSlices*len(d.sites)), nil
}

// share deals studies to sites in turn. shift is 0 where they are stored; with
// others no study comes to where it was stored, as long as it is below the
// number of sites.
func (d *demo) share(shift int, use func(s *demoSite, studies []*study) error) error {
	shares := make([][]*study, len(d.sites))
	for i, one := range d.images.studies {
		to := (i + shift) % len(d.sites)
		shares[to] = append(shares[to], one)
	}
	var group errgroup.Group
	for i, s := range d.sites {
		group.Go(func() error { return use(s, shares[i]) })
	}
	return group.Wait()
}

func (d *demo) store(ctx context.Context) (string, error) {
	err := d.share(0, func(s *demoSite, studies []*study) error {
		if err := s.store(ctx, d.images, studies...); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		return nil
	})
	return fmt.Sprintf("%d instances of %d studies", files(d.images.studies), len(d.images.studies)), err
}

// everywhere waits until all studies are found at some sites, whole.
func (d *demo) everywhere(ctx context.Context, sites []*demoSite) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, spreads)
	defer cancel()
	began := time.Now()
	for _, s := range sites {
		for {
			all, err := s.knows(ctx, d.images.studies)
			if err != nil {
				return "", err
			}
			if all {
				break
			}
			select {
			case <-time.After(look):
			case <-ctx.Done():
				return "", fault.New(fault.Unavailable, "%s does not know all studies after %v", s.name, spreads)
			}
		}
	}
	return fmt.Sprintf("%d studies at each of %d sites, %.2f s after the last image", len(d.images.studies), len(sites), time.Since(began).Seconds()), nil
}

// move has each study sent to a workstation beside a site that does not own it.
func (d *demo) move(ctx context.Context) (string, error) {
	err := d.share(1, func(s *demoSite, studies []*study) error {
		w, err := openWorkstation(d.images)
		if err != nil {
			return err
		}
		err = s.move(ctx, w, studies)
		if closed := w.close(); err == nil {
			err = closed
		}
		return err
	})
	return fmt.Sprintf("%d instances, byte for byte", files(d.images.studies)), err
}

func (d *demo) wado(ctx context.Context) (string, error) {
	shift := 2
	if len(d.sites) == 2 {
		shift = 1
	}
	err := d.share(shift, func(s *demoSite, studies []*study) error { return s.wado(ctx, d.images, studies...) })
	return fmt.Sprintf("%d instances, byte for byte", files(d.images.studies)), err
}

// kill takes a site away without warning. From three sites on others vote too, and
// the one that leads is replaced; it waits until they do, which is when they have
// been seen to be well for a while. Of two sites only the founder votes.
func (d *demo) kill(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, demoWait)
	defer cancel()
	began := time.Now()
	d.away = d.sites[len(d.sites)-1]
	for len(d.sites) >= leastVoters {
		st, err := d.sites[0].status(ctx)
		if err != nil {
			return "", err
		}
		d.away = d.leader(st)
		if voters(st) >= leastVoters && st.Leader != "" {
			break
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return "", fault.New(fault.Unavailable, "%d sites vote after %v", voters(st), demoWait)
		}
	}
	said := "site " + d.away.name
	if waited := time.Since(began); waited > time.Second {
		said += fmt.Sprintf(", %.0f s later: others had to have a vote first", waited.Seconds())
	}
	return said, d.away.node.Kill()
}

// voters is how many nodes vote.
func voters(st admin.Status) (n int) {
	for _, site := range st.Sites {
		for _, one := range site.Nodes {
			if one.Voter {
				n++
			}
		}
	}
	return n
}

// leastVoters is how many sites must vote for any of them to be lost.
const leastVoters = 3

// site is the one of a name.
func (d *demo) site(name string) *demoSite {
	for _, s := range d.sites {
		if s.name == name {
			return s
		}
	}
	return d.sites[0]
}

// meanwhile goes on with the sites that are there.
func (d *demo) meanwhile(ctx context.Context) (string, error) {
	there := slices.DeleteFunc(slices.Clone(d.sites), func(s *demoSite) bool { return s == d.away })
	made, err := d.images.make(meanwhileSlices)
	if err != nil {
		return "", err
	}
	if err := there[0].store(ctx, d.images, made); err != nil {
		return "", err
	}
	said, err := d.everywhere(ctx, there)
	if err != nil {
		return "", err
	}
	opens := there[len(there)-1]
	return said + "; opened at " + opens.name, opens.wado(ctx, d.images, made)
}

// back starts the node that was killed and waits until it knows and opens what
// was stored while it was away.
func (d *demo) back(ctx context.Context) (string, error) {
	said, err := ready(func() error { return d.away.again(ctx) })
	if err != nil {
		return "", err
	}
	began := time.Now()
	if _, err := d.everywhere(ctx, []*demoSite{d.away}); err != nil {
		return "", err
	}
	said += fmt.Sprintf(", caught up %.2f s later", time.Since(began).Seconds())
	return said, d.away.wado(ctx, d.images, d.images.studies[len(d.images.studies)-1])
}

func (d *demo) verify(ctx context.Context) (string, error) {
	var received, rests int64
	for _, s := range d.sites {
		r, rest, err := s.verify(ctx)
		if err != nil {
			return "", err
		}
		received, rests = received+r, rests+rest
	}
	return fmt.Sprintf("%s received, %s at rest, copies included, nothing wrong", size(received), size(rests)), nil
}
