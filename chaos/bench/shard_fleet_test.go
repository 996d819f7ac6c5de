package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/shard"
)

// A network of six sites under 3+3 that spreads exactly what its code costs is at 1;
// what it sends or keeps more is told.
func TestSpreadingIsHeldAgainstItsCode(t *testing.T) {
	code := shard.Code{K: 3, M: 3}
	const stored, hot = 300_000, 900_000
	const sent = stored / 3 * 5    // five shards of a third
	const rests = hot + hot/3*5    // the copies, and these
	const more = rests + hot/3*6/5 // and a fifth of a whole stripe
	for name, test := range map[string]struct {
		sent, rests int64
		want        spreading
	}{
		"exactly":         {sent, rests, spreading{stored, 1, 1}},
		"sent twice":      {2 * sent, rests, spreading{stored, 2, 1}},
		"more on disk":    {sent, more, spreading{stored, 1, 1.2}},
		"the virtual too": {sent, hot + hot/3*6, spreading{stored, 1, 7.0 / 6}},
	} {
		got := spread(code, 6, stored, hot, test.sent, test.rests)
		if math.Abs(got.sent-test.want.sent) > 1e-9 || math.Abs(got.rests-test.want.rests) > 1e-9 || got.stored != test.want.stored {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
	// Where rows have not all sites, the origin's shard is virtual for n of N packs.
	if got := spread(code, 12, 2_000, 2_000, 2_000*11/6, 2_000+2_000*11/6); math.Abs(got.sent-1) > 1e-3 || math.Abs(got.rests-1) > 1e-3 {
		t.Errorf("of twelve sites: %+v", got)
	}
}

func TestRebuildingIsHeldAgainstTheLinks(t *testing.T) {
	// 75 MB over six links of 10 Mb/s take 10 s.
	if got := travels(90, 7); got != 75 {
		t.Errorf("%d of 90 travel", got)
	}
	if got := rebuildRatio(12*time.Second, 75_000_000, 6, 10*world.Mbps); math.Abs(got-1.2) > 1e-9 {
		t.Errorf("%v", got)
	}
}

func TestARebuildMakesWhatWasLost(t *testing.T) {
	const mb = 1_000_000
	for came, good := range map[int64]bool{0: false, 90 * mb: false, 97 * mb: false, 98 * mb: true, 100 * mb: true, 120 * mb: true} {
		if err := madeAgain(100*mb, came); (err == nil) != good {
			t.Errorf("%d of 100 MB: %v", came, err)
		}
	}
}

func TestAnswersOfTheAPIAreRead(t *testing.T) {
	var p protection
	const answer = `{"state":"protected","survives_sites":2,"packs":[{"id":"a","k":3,"m":3,"shards":[{"index":0,"site":"s","node":"n","state":"held"}]}]}`
	if err := json.Unmarshal([]byte(answer), &p); err != nil || len(p.Packs) != 1 || p.Packs[0].M != 3 || p.Packs[0].Shards[0].Site != "s" {
		t.Fatalf("%+v, %v", p, err)
	}
	if !p.protected(2) || p.protected(3) || (protection{State: "degraded", SurvivesSites: 2}).protected(2) {
		t.Error("whether a study is protected")
	}
	for text, want := range map[string]bool{
		`{"layout_version":5,"layout":{"from":0},"repair":{"queued":0,"running":0}}`: true,
		`{"layout_version":5,"layout":{"from":4},"repair":{"queued":0,"running":0}}`: false,
		`{"layout_version":5,"repair":{"queued":1,"running":0}}`:                     false,
		`{"layout_version":5,"repair":{"queued":0,"running":2}}`:                     false,
		`{"layout_version":4,"repair":{"queued":0,"running":0}}`:                     false,
	} {
		var s shardStatus
		if err := json.Unmarshal([]byte(text), &s); err != nil || s.done(4) != want {
			t.Errorf("%s: done %v, %v", text, s.done(4), err)
		}
	}
}

func TestStudiesAreNamedOnce(t *testing.T) {
	p := input.Population{Seed: 1, Size: 2}
	a, b := input.Instance{Study: p.Study(0), Number: 1}, input.Instance{Study: p.Study(1), Number: 1}
	got := studiesOf(folder{images: []input.Instance{a, a, b}}, folder{images: []input.Instance{b}})
	if !slices.Equal(got, []string{a.Study.UID, b.Study.UID}) {
		t.Errorf("%v", got)
	}
}

// A modality asks a real node for commitment, and takes its result.
func TestAModalityIsCommittedTo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a node")
	}
	dimsetest.Tool(t, "storescu")
	b := &bench{options: options{dir: t.TempDir()}, size: quick, pelago: peer.Pelago{Binary: build(t)}}
	b.inputs.dir = t.TempDir()
	c, err := newCommitter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	files, err := b.ct("committed", seedNetwork, 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	err = b.fleet(t.Context(), world.Link{}, func(f *fleet.Fleet) error {
		// A result that was sent again, of another request, is passed over.
		c.results <- &dimse.CommitmentResult{Transaction: "2.25.1"}
		seconds, err := c.commit(t.Context(), f.Nodes[0], "2.25.2", files)
		if err == nil && (seconds <= 0 || seconds > 60) {
			t.Errorf("it took %v s", seconds)
		}
		strange := files
		strange.images = append(slices.Clone(files.images), input.Instance{Study: input.Population{Seed: 99, Size: 1}.Study(0), Number: 1})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, failed := c.commit(ctx, f.Nodes[0], "2.25.3", strange); failed == nil {
			t.Error("committed to an image that it does not have")
		}
		return err
	}, "alone")
	if err != nil {
		t.Error(err)
	}
	if err := c.stop(); err != nil {
		t.Error(err)
	}
}

// Whoever commits to what nobody else holds is found out.
func TestAnEmptyCommitmentIsFoundOut(t *testing.T) {
	var state string
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/protection") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, state)
	}))
	defer node.Close()
	files := folder{images: []input.Instance{{Study: input.Population{Seed: 1, Size: 1}.Study(0), Number: 1}}}
	for text, good := range map[string]bool{
		`{"state":"protected","survives_sites":2}`: true,
		`{"state":"protected","survives_sites":1}`: false,
		`{"state":"local","survives_sites":0}`:     false,
	} {
		state = text
		if err := kept(t.Context(), node.URL, 2, files); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
