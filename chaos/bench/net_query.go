package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/dimse/dict"
)

// getJSON asks a node for JSON; what is absent leaves into as it is.
func getJSON(ctx context.Context, n *fleet.Node, path string, into any) error {
	return getAPI(ctx, n.HTTP(), path, into)
}

// getAPI asks a web face.
func getAPI(ctx context.Context, web, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, web+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/dicom+json, application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, answer.Status)
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// instancesAt is how many instances of a study a node counts; 0: it does not
// know the study.
func instancesAt(ctx context.Context, n *fleet.Node, study string) (int, error) {
	var raw []map[string]json.RawMessage
	if err := getJSON(ctx, n, "/dicom-web/studies?StudyInstanceUID="+url.QueryEscape(study), &raw); err != nil || len(raw) == 0 {
		return 0, err
	}
	count := struct{ Value []int }{}
	tag := fmt.Sprintf("%08X", uint32(dict.NumberOfStudyRelatedInstances))
	if err := json.Unmarshal(raw[0][tag], &count); err != nil {
		return 0, fmt.Errorf("%s: a study's count: %w", n.Site, err)
	}
	if len(count.Value) != 1 {
		return 0, fmt.Errorf("%s: a study without a count", n.Site)
	}
	return count.Value[0], nil
}

// peerCalls counts the calls that a node made to others, but for Raft's.
const peerCalls = "pelago_peer_calls_total"

// netQuery compares queries at the owner of studies and elsewhere.
func netQuery(ctx context.Context, b *bench, s *sheet) error {
	files, err := b.tiny(seedTiny, b.net.studies)
	if err != nil {
		return err
	}
	s.note("%d studies at one of two sites; %d QIDO at study level by Accession Number at each a round, by turns, medians of what the client sees; calls are those that the asked node made to others (`%s`), but for Raft's, a thousand queries", files.files, b.net.queries, peerCalls)
	return b.fleet(ctx, world.Both(50*time.Millisecond, 100*world.Mbps), func(f *fleet.Fleet) error {
		here, there := f.Nodes[0], f.Nodes[1]
		if err := parallel(ctx, server(here), files.paths, nil); err != nil {
			return err
		}
		if err := quiet(ctx, f, files.files); err != nil {
			return err
		}
		for round := range b.rounds {
			if err := b.queryRound(ctx, s, here, there, files); err != nil {
				return err
			}
			b.say("  round %d", round+1)
		}
		return nil
	}, sites(2)...)
}

func (b *bench) queryRound(ctx context.Context, s *sheet, here, there *fleet.Node, files folder) error {
	before, err := counter(ctx, there, peerCalls)
	if err != nil {
		return err
	}
	took := map[*fleet.Node][]float64{}
	for i := range b.net.queries {
		study := files.images[i%len(files.images)].Study
		for _, n := range []*fleet.Node{here, there} {
			var found []json.RawMessage
			began := time.Now()
			if err := getJSON(ctx, n, "/dicom-web/studies?AccessionNumber="+url.QueryEscape(study.Accession), &found); err != nil {
				return err
			}
			took[n] = append(took[n], time.Since(began).Seconds()*1e3)
			if len(found) == 0 {
				return fmt.Errorf("site %s does not know study %s", n.Site, study.UID)
			}
		}
	}
	after, err := counter(ctx, there, peerCalls)
	if err != nil {
		return err
	}
	s.add("query", "ms", pelago, median(took[there]))
	s.add("query", "ms", owner, median(took[here]))
	s.add("query calls", "", pelago, (after-before)*1000/float64(b.net.queries))
	return nil
}
