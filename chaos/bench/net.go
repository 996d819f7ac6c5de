package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pelago/chaos/bench/peer"
	"pelago/chaos/fleet"
	"pelago/chaos/world"
	"pelago/node/admin"
)

// What figures of the network stand beside.
const (
	networkOfOne = "a network of one"
	owner        = "the site that owns it"
)

// netSize is how much is stored and asked in the rows of the network.
type netSize struct {
	images            int // of each C-STORE turn
	storeTurns        int // that each takes in a round
	visible           int // studies that each site stores a round
	studies, queries  int // of the row of queries: stored, asked a round
	opened            int // series of the row of first frames, a rate and round
	series            int // images of a series that is opened as a whole
	slow              time.Duration
	slowStudies       int // that arrive meanwhile, image by image
	backlog, lone     int // series in studies of several; studies of one
	changes           int // decisions a round
	slowSeries, slowN int // of each of them
}

var (
	netFull = netSize{
		images: 200, storeTurns: 12, visible: 12, studies: 2_000, queries: 400, opened: 8, series: 500,
		slow: 55 * time.Second, slowStudies: 4, slowSeries: 5, slowN: 100, backlog: 1_000_000, lone: 100_000, changes: 60,
	}
	netQuick = netSize{
		images: 8, storeTurns: 1, visible: 2, studies: 20, queries: 5, opened: 2, series: 6,
		slow: 2 * time.Second, slowStudies: 1, slowSeries: 2, slowN: 3, backlog: 500, lone: 100, changes: 4,
	}
)

// networkRows are those of nodes in a network.
func networkRows() []row {
	return []row{
		{"store", netStore, []line{
			{"C-STORE at a site of three, 80 ms apart", "connected", "≥ 0.9× a network of one", []check{{atLeast, networkOfOne, 0.9}}},
			{"the same, cut off from the others", "cut off", "≥ 0.9× a network of one", []check{{atLeast, networkOfOne, 0.9}}},
		}},
		{"visible", netVisible, []line{
			{"a study whole at all of 5 sites, 80 ms apart, after its last image: p50", "visible p50", "≤ 1.5 s", []check{{most, "", 1.5}}},
			{"the same: p99", "visible p99", "< 3 s", []check{{most, "", 3}}},
		}},
		{"log", netLog, []line{
			{"bytes through Raft a study of 5 × 100 images that arrives within a minute", "log bytes", "≤ 3 KB", []check{{most, "", 3000}}},
			{"the same, until it is protected: with the key of the study, seals and receipts", "sealed bytes", "no limit is asked", nil},
		}},
		{"query", netQuery, []line{
			{"QIDO at a site that does not own the study, 50 ms away: median", "query", "as fast as at its owner (≥ 0.9×)", []check{{faster, owner, 0.9}}},
			{"calls to other nodes that 1,000 such queries make", "query calls", "0", []check{{most, "", 0}}},
		}},
		{"first-frame", netFirstFrame, []line{
			{"first frame of a series that rests 50 ms away, 1 Gb/s, over (round trip + bytes ÷ bandwidth)", "frame 1 Gb/s", "≤ 1.3×", []check{{most, "", 1.3}}},
			{"the same at 100 Mb/s", "frame 100 Mb/s", "≤ 1.3×", []check{{most, "", 1.3}}},
		}},
		{"series", netSeries, []line{
			{"a whole series of 500 images that rests 50 ms away: share of a link of 100 Mb/s", "series 100 Mb/s", "≥ 0.85", []check{{least, "", 0.85}}},
			{"the same, of a link of 1 Gb/s", "series 1 Gb/s", "≥ 0.85", []check{{least, "", 0.85}}},
		}},
		{"readers", netReaders, []line{
			{"8 readers at 4 sites open a series of 500 images at once: time over that of one reader", "readers", "≤ 1.3×", []check{{most, "", 1.3}}},
			{"bytes that the origin sends to any one site, over those of the series at rest", "readers sent", "≤ 1 (headers and proofs included: ≤ 1.1)", []check{{most, "", 1.1}}},
		}},
		{"backlog", netBacklog, []line{
			{"bytes of the catalogue on disk a series, with all indexes, 1,000,000 series in studies of 5", "catalogue bytes", "≤ 700 B", []check{{most, "", 700}}},
			{"apply rate of a backlog of these at a node that was away", "apply", "≥ 10,000 series/s", []check{{least, "", 10_000}}},
			{"bootstrap of that catalogue on a new node: share of a link of 200 Mb/s", "bootstrap", "≥ 0.7", []check{{least, "", 0.7}}},
			{"the costliest studies, of one series each, 100,000: bytes of the catalogue a series", lone + "catalogue bytes", "≤ 700 B", []check{{most, "", 700}}},
			{"of these: apply rate", lone + "apply", "≥ 10,000 series/s", []check{{least, "", 10_000}}},
			{"of these: bootstrap", lone + "bootstrap", "≥ 0.7", []check{{least, "", 0.7}}},
		}},
		{"commit", netCommit, []line{
			{"commit under load, 5 voters, 150 ms: p50 in round trips", "commit p50", "≤ 1.15", []check{{most, "", 1.15}}},
		}},
		{"sites", netSites, []line{
			{"50 sites in one process: CPU a node and second, idle", "sites idle CPU", "≤ 1 % of a core", []check{{most, "", 10}}},
			{"the same, while each stores an image a second", "sites load CPU", "≤ 1 % of a core", []check{{most, "", 10}}},
			{"bytes that a node sends a second, idle: the leader", "sites idle leader", "≤ 2 Mb/s", []check{{most, "", 250}}},
			{"the same: each other", "sites idle others", "≤ 0.1 Mb/s", []check{{most, "", 12.5}}},
			{"the same under that load: the leader", "sites load leader", "≤ 10 Mb/s", []check{{most, "", 1250}}},
			{"the same: each other", "sites load others", "≤ 0.1 Mb/s", []check{{most, "", 12.5}}},
			{"another leader after a third of the sites were lost with it", "sites elected", "≤ 20 s", []check{{most, "", 20}}},
			{"all sites agree on all after healing", "sites agreed", "≤ 30 s", []check{{most, "", 30}}},
		}},
	}
}

// fleet runs a network for as long as it is used, on directories that are
// removed afterwards.
func (b *bench) fleet(ctx context.Context, link world.Link, use func(*fleet.Fleet) error, sites ...world.Site) error {
	return b.patientFleet(ctx, link, 0, use, sites...)
}

// patientFleet is fleet, of nodes that may take so long to be ready; 0: what
// fleet.Options has.
func (b *bench) patientFleet(ctx context.Context, link world.Link, ready time.Duration, use func(*fleet.Fleet) error, sites ...world.Site) error {
	return b.runFleet(ctx, fleet.Options{Sites: sites, World: world.Options{Link: link}, Ready: ready}, use)
}

// runFleet is fleet, of what options have beside the binary and its folder.
func (b *bench) runFleet(ctx context.Context, o fleet.Options, use func(*fleet.Fleet) error) error {
	o.Binary, o.Dir = b.pelago.Binary, b.fresh()
	o.Env = append(o.Env, "PELAGO_ADMIN_PROFILES=true", "PELAGO_LOG_LEVEL=warn")
	f, err := fleet.Start(ctx, o)
	if err != nil {
		return err
	}
	err = errors.Join(use(f), f.Close(), b.keepLogs(o.Dir))
	return errors.Join(err, os.RemoveAll(o.Dir))
}

// keepLogs copies the nodes' logs to where profiles are kept.
func (b *bench) keepLogs(dir string) error {
	if b.profile == "" {
		return nil
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*", "node.log"))
	if err != nil {
		return err
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err == nil {
			err = os.MkdirAll(b.profile, 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profile, filepath.Base(dir)+"-"+filepath.Base(filepath.Dir(log))+".log"), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sites names so many places.
func sites(n int) []world.Site {
	all := make([]world.Site, n)
	for i := range all {
		all[i] = world.Site(fmt.Sprintf("site%d", i+1))
	}
	return all
}

// server is a node as a peer of the rows of nodes alone, for their tools.
func server(n *fleet.Node) *peer.Server {
	return &peer.Server{Dir: n.Data(), AE: n.AE(), DICOM: n.DICOM(), Web: n.HTTP() + "/dicom-web"}
}

// status asks a node.
func status(ctx context.Context, n *fleet.Node) (s admin.Status, err error) {
	return s, getJSON(ctx, n, "/api/status", &s)
}

// pause between looks at something that is waited for; patience is how long that
// may take.
const (
	pause    = 10 * time.Millisecond
	patience = 3 * time.Minute
)

// until waits until something is so.
func until(ctx context.Context, what string, so func() (bool, error)) error {
	return untilWithin(ctx, patience, what, so)
}

// untilWithin is until, for what may take longer.
func untilWithin(ctx context.Context, patience time.Duration, what string, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		is, err := so()
		if is || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %v", what, patience)
		}
	}
}

// quiet waits until every node that runs knows so many instances, and has
// nothing more to tell.
func quiet(ctx context.Context, f *fleet.Fleet, instances int) error {
	return until(ctx, fmt.Sprintf("all nodes know %d instances", instances), func() (bool, error) {
		for _, n := range f.Nodes {
			if !n.Running() {
				continue
			}
			s, err := status(ctx, n)
			if err != nil || s.PendingJournal > 0 || s.Instances != uint64(instances) {
				return false, err
			}
		}
		return true, nil
	})
}

// voters waits until so many sites vote, as the leader chooses them one by one.
func voters(ctx context.Context, f *fleet.Fleet, want int) error {
	return until(ctx, fmt.Sprintf("%d voters", want), func() (bool, error) {
		s, err := status(ctx, f.Nodes[0])
		if err != nil {
			return false, err
		}
		n := 0
		for _, site := range s.Sites {
			for _, node := range site.Nodes {
				if node.Voter {
					n++
				}
			}
		}
		return n == want && s.Leader != "", nil
	})
}

// leader is the node that leads.
func leader(ctx context.Context, f *fleet.Fleet) (*fleet.Node, error) {
	s, err := status(ctx, f.Nodes[0])
	if err != nil {
		return nil, err
	}
	for _, n := range f.Nodes {
		own, err := status(ctx, n)
		if err != nil {
			return nil, err
		}
		if own.Node == s.Leader {
			return n, nil
		}
	}
	return nil, errors.New("no node leads")
}

// counter reads a figure of a node's /metrics: the sum over its labels.
func counter(ctx context.Context, n *fleet.Node, name string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP()+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if metric, _, _ := strings.Cut(key, "{"); !ok || metric != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, err
		}
		if found = true; !strings.Contains(key, `service="raft"`) { // its heartbeats are no calls that anybody makes
			sum += v
		}
	}
	if !found {
		return 0, fmt.Errorf("the node has no metric %s", name)
	}
	return sum, nil
}
