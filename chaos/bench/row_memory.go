package main

import (
	"context"
	"errors"
	"fmt"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
)

// crowd is how many associations store at once.
const crowd = 16

// memory measures the node's peak of resident memory.
func memory(ctx context.Context, b *bench, s *sheet) error {
	multi, err := b.multiframe()
	if err != nil {
		return err
	}
	s.note("the multi-frame has %s GB; it is stored by `storescu`, read by `getscu` and WADO-RS from staging, packed, and read again", number(float64(multi.bytes)/1e9))
	crowded, err := b.ct("crowd", seedMulti+10, crowd*b.size.each, b.size.each)
	if err != nil {
		return err
	}
	for range b.rounds {
		err := b.with(ctx, b.contender(pelago), nil, func(server *peer.Server) error {
			if err := throughAndBack(ctx, server, multi); err != nil {
				return err
			}
			return peak(s, "multi-frame", server)
		})
		if err != nil {
			return err
		}
		err = b.with(ctx, b.contender(pelago), nil, func(server *peer.Server) error {
			if err := parallel(ctx, server, crowded.paths, nil); err != nil {
				return err
			}
			return peak(s, "associations", server)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func peak(s *sheet, name string, server *peer.Server) error {
	_, most, err := server.Memory()
	s.add(name, "MB", pelago, float64(most)/1e6)
	return err
}

// multiframe returns the long multi-frame.
func (b *bench) multiframe() (folder, error) {
	return b.inputs.make("multi", func(dir string) (folder, error) {
		study := input.Population{Seed: seedMulti, Size: 1}.Study(0)
		return write(dir, []input.Instance{{
			Study: study, Class: input.MultiFrameWord, Series: 1, Number: 1, Rows: 512, Columns: 512, Frames: b.size.multi,
		}}, func(int) string { return "multi" })
	})
}

// throughAndBack stores a multi-frame and reads it from staging and from its pack.
func throughAndBack(ctx context.Context, server *peer.Server, files folder) error {
	if err := server.StoreSCU(ctx, nil, files.paths...); err != nil {
		return err
	}
	if err := readBack(ctx, server, files); err != nil {
		return fmt.Errorf("from staging: %w", err)
	}
	if err := (peer.Node{Server: server}).Pack(ctx); err != nil {
		return err
	}
	if err := readBack(ctx, server, files); err != nil {
		return fmt.Errorf("from packs: %w", err)
	}
	return nil
}

func readBack(ctx context.Context, server *peer.Server, files folder) error {
	image := files.images[0]
	got, err := server.GetSCU(ctx, image.Study.UID, "--ignore")
	if err == nil && got != 1 {
		err = fmt.Errorf("getscu received %d instances", got)
	}
	url := fmt.Sprintf("%s/studies/%s/series/%s/instances/%s", server.Web, image.Study.UID, image.Study.SeriesUID(1), image.UID())
	return errors.Join(err, newClient().fetch(ctx, url, `multipart/related; type="application/dicom"; transfer-syntax=*`, image.Bytes()))
}
