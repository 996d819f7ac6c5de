package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// recorded are the attributes that the test of many sites in one process records,
// and their metrics.
var recorded = map[string]struct{ metric, unit string }{
	"idle-cpu-ms":    {"sites idle CPU", "ms/s"},
	"idle-leader-kB": {"sites idle leader", "kB/s"},
	"idle-others-kB": {"sites idle others", "kB/s"},
	"load-cpu-ms":    {"sites load CPU", "ms/s"},
	"load-leader-kB": {"sites load leader", "kB/s"},
	"load-others-kB": {"sites load others", "kB/s"},
	"elected-s":      {"sites elected", "s"},
	"agreed-s":       {"sites agreed", "s"},
}

// netSites runs the test of fifty sites in one process on virtual time, which is
// a test because virtual time is of tests only, and takes over what it recorded.
func netSites(ctx context.Context, b *bench, s *sheet) error {
	s.note("one process on virtual time (pelago/chaos/sites): 7 of the sites vote, 80 ms between any two; under load each stores an image a second, of a study that changes every 12 s; CPU is of this machine, shared out evenly, and of all that a node does in this process: no DICOM, no disk, no gossip, of which each of 50 nodes sends some 5 kB/s more (`TestFiftyNodesGossipLittle` of `cluster/gossip`)")
	args := []string{"test", "-count=1", "-v", "-run", "^TestFiftySites$"}
	if b.quick {
		args = append(args, "-short")
	}
	for round := range b.rounds {
		out, err := exec.CommandContext(ctx, "go", append(args, "pelago/chaos/sites")...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("fifty sites: %w: %s", err, out)
		}
		if err := s.takeAttributes(out); err != nil {
			return err
		}
		b.say("  round %d ended", round+1)
	}
	return nil
}

// takeAttributes adds what a test has recorded (testing.T.Attr); all of it must
// be there.
func (s *sheet) takeAttributes(out []byte) error {
	seen := 0
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		text, ok := strings.CutPrefix(lines.Text(), "=== ATTR  TestFiftySites ")
		if !ok {
			continue
		}
		name, text, _ := strings.Cut(text, " ")
		r, known := recorded[name]
		value, err := strconv.ParseFloat(text, 64)
		if err != nil || !known {
			return fmt.Errorf("fifty sites recorded %s %q", name, text)
		}
		seen++
		s.add(r.metric, r.unit, pelago, value)
	}
	if seen != len(recorded) {
		return fmt.Errorf("fifty sites recorded %d of %d figures", seen, len(recorded))
	}
	return nil
}
