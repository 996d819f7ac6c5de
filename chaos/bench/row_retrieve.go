package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pelago/chaos/bench/peer"
)

// sink is the title of the storescp that studies are moved to.
const sink = "SINK"

// retrieve measures C-GET and C-MOVE of a study to dcmtk.
func retrieve(ctx context.Context, b *bench, s *sheet) (err error) {
	files, err := b.ct("study", seedStudy, b.size.retrieve, b.size.retrieve/4)
	if err != nil {
		return err
	}
	s.note("%d images; Pelago from compressed packs, warm after the first round; the receivers drop what they get (`--ignore`)", files.files)
	storescp, port, err := peer.Sink(ctx, b.fresh(), sink)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, storescp.Stop()) }()
	modalities := map[string]int{sink: port}
	contenders := []contender{
		b.contender(pelago),
		{unstalled, peer.Orthanc{Preload: b.shim, Modalities: modalities}.Start, nil},
		{shipped, peer.Orthanc{Modalities: modalities}.Start, b.contender(shipped).fill},
	}
	servers := map[string]*peer.Server{}
	return b.retrieveFrom(ctx, s, contenders, servers, files, port)
}

// retrieveFrom starts the contenders one within the other, then takes rounds.
func (b *bench) retrieveFrom(ctx context.Context, s *sheet, left []contender, servers map[string]*peer.Server, files folder, port int) error {
	if len(left) > 0 {
		return b.with(ctx, left[0], []folder{files}, func(server *peer.Server) error {
			servers[left[0].name] = server
			if left[0].name == pelago {
				node := peer.Node{Server: server}
				if err := errors.Join(node.Register(ctx, sink, port), node.Pack(ctx)); err != nil {
					return err
				}
			}
			return b.retrieveFrom(ctx, s, left[1:], servers, files, port)
		})
	}
	for round := range b.rounds {
		for _, who := range []string{pelago, unstalled, shipped} {
			server := servers[who]
			err := b.profiled(ctx, server, fmt.Sprintf("retrieve-%d", round), func() error {
				return errors.Join(getOnce(ctx, s, who, server, files), moveOnce(ctx, s, who, server, files))
			})
			if err != nil {
				return fmt.Errorf("%s: %w", who, err)
			}
		}
		b.say("  round %d", round+1)
	}
	return nil
}

func getOnce(ctx context.Context, s *sheet, who string, server *peer.Server, files folder) error {
	began := time.Now()
	got, err := server.GetSCU(ctx, files.images[0].Study.UID, "--ignore")
	if err == nil && got != files.files {
		err = fmt.Errorf("getscu received %d of %d images", got, files.files)
	}
	s.add("get", "/s", who, float64(files.files)/time.Since(began).Seconds())
	return err
}

func moveOnce(ctx context.Context, s *sheet, who string, server *peer.Server, files folder) error {
	began := time.Now()
	err := server.MoveSCU(ctx, files.images[0].Study.UID, sink)
	s.add("move", "/s", who, float64(files.files)/time.Since(began).Seconds())
	return err
}
