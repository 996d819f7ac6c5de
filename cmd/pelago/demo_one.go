package main

import (
	"context"
	"fmt"
	"time"

	"pelago/cluster/fault"
)

// phantomSlices are those of the study that a demonstration of one site draws.
const phantomSlices = 60

// one is the demonstration of a node alone: it stores, dies, comes back, and has
// everything.
func (d *demo) one() []demoStep {
	s := d.sites[0]
	return []demoStep{
		{"start a node", func(ctx context.Context) (string, error) { return ready(func() error { return s.start(ctx) }) }},
		{"gather images", d.gatherOne},
		{"store them over C-STORE", d.storeOne},
		{"kill the node (SIGKILL) and start it again", func(ctx context.Context) (string, error) {
			if err := s.node.Kill(); err != nil {
				return "", err
			}
			return ready(func() error { return s.again(ctx) })
		}},
		{"find the studies over C-FIND and QIDO-RS", d.findOne},
		{"open every instance over C-GET, byte for byte", func(ctx context.Context) (string, error) {
			n, err := s.get(ctx, d.images, s.stored...)
			return fmt.Sprintf("%d instances, %s", files(s.stored), size(n)), err
		}},
		{"open every instance over WADO-RS, byte for byte", func(ctx context.Context) (string, error) {
			return fmt.Sprintf("%d instances", files(s.stored)), s.wado(ctx, d.images, s.stored...)
		}},
		{"pack what was stored, and verify all of it", func(ctx context.Context) (string, error) {
			received, rests, err := s.verify(ctx)
			return fmt.Sprintf("%s received, %s at rest, nothing wrong", size(received), size(rests)), err
		}},
	}
}

// ready says how long something took until the node was ready.
func ready(start func() error) (string, error) {
	began := time.Now()
	err := start()
	return fmt.Sprintf("ready after %d ms", time.Since(began).Milliseconds()), err
}

func (d *demo) gatherOne(context.Context) (string, error) {
	if err := d.images.gather(d.samples); err != nil {
		return "", err
	}
	found := files(d.images.studies)
	if _, err := d.images.make(phantomSlices); err != nil {
		return "", err
	}
	if found == 0 {
		return fmt.Sprintf("no samples here: made %d CT slices", phantomSlices), nil
	}
	return fmt.Sprintf("%d real files, and made %d CT slices", found, phantomSlices), nil
}

func (d *demo) storeOne(ctx context.Context) (string, error) {
	said := fmt.Sprintf("%d instances with Pelago's own client", files(d.images.studies))
	if hasDCMTK() {
		said += fmt.Sprintf(", %d of them with dcmtk's storescu before", phantomSlices)
	}
	return said, d.sites[0].store(ctx, d.images, d.images.studies...)
}

func (d *demo) findOne(ctx context.Context) (string, error) {
	all, err := d.sites[0].knows(ctx, d.images.studies)
	if err == nil && !all {
		err = fault.New(fault.Corrupt, "not all that was stored is found")
	}
	return fmt.Sprintf("%d studies", len(d.images.studies)), err
}
