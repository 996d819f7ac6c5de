package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
	"pelago/node/admin"
)

// spreadTime is how long a test's few megabytes may take to be spread, or rebuilt.
const spreadTime = 3 * time.Minute

// sites starts a network of so many sites that pack at once, and waits until it has
// agreed on a layout of all of them.
func sites(t *testing.T, n int, change ...func(*proc.Options)) []*node {
	t.Helper()
	var all []*node
	for i := range n {
		options := append([]func(*proc.Options){at(fmt.Sprint("Site", i+1)), packing}, change...)
		if i > 0 {
			options = append(options, joining(fmt.Sprint("Site", i+1), all[0], all[0].token()))
		}
		all = append(all, start(t, options...))
	}
	for _, n := range all {
		n.striped(len(all))
	}
	return all
}

// striped waits until a node's network promises what so many sites can.
func (n *node) striped(sites int) {
	n.t.Helper()
	want := map[int]int{1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2}[sites]
	eventually(n.t, spreadTime, fmt.Sprintf("the network survives %d sites", want), func() bool {
		s := n.status()
		return s.SurvivesSites == want && s.LayoutVersion > 0
	})
}

// protected waits until a node says that studies survive the loss of so many sites.
func (n *node) protected(survives int, studies ...string) {
	n.t.Helper()
	for _, s := range studies {
		eventually(n.t, spreadTime, "study "+s+" is protected", func() bool {
			answer, err := n.try(http.MethodGet, "/api/studies/"+s+"/protection", nil, nil)
			if err != nil {
				n.t.Fatal(err)
			}
			var p admin.Protection
			text := readAll(n.t, answer)
			if answer.StatusCode == http.StatusNotFound {
				return false // it has not heard of the study yet
			}
			if err := json.Unmarshal(text, &p); err != nil {
				n.t.Fatalf("%d %s: %v", answer.StatusCode, text, err)
			}
			return p.State == "protected" && p.SurvivesSites >= survives
		})
	}
}

// opens retrieves everything over both protocols and compares.
func (n *node) opens(how string, all []instance) {
	n.t.Helper()
	n.cget(all).same(n.t.(*testing.T), "C-GET "+how, all)
	n.wado(all).same(n.t.(*testing.T), "WADO-RS "+how, all)
}

// A study that was stored at one site opens everywhere when that site and another
// have burnt; an empty site takes their part, and protection returns.
func TestAStudyOutlivesItsOriginAndAnotherSite(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	all := sites(t, 5)
	stored := world(dimsetest.World{Seed: 501, Patients: 3, PerSeries: 6})
	all[1].cstore(stored)
	for _, n := range []*node{all[0], all[3], all[4]} {
		n.protected(2, studies(stored)...) // those who are to open it have heard of all seals
	}
	all[1].kill()
	all[2].kill()
	survivors := []*node{all[0], all[3], all[4]}
	all[3].opens("at a survivor", stored)
	for _, s := range []string{"Site2", "Site3"} {
		all[0].cli(0, "lost", "--data", all[0].Data(), s)
	}
	fresh := start(t, at("Site6"), packing, joining("Site6", all[0], all[0].token()))
	for _, n := range append(survivors, fresh) {
		n.protected(2, studies(stored)...)
	}
	// What the burnt sites held is held by others now: two more may go.
	all[0].kill()
	all[3].kill()
	fresh.opens("at the site that came last", stored)
}

// Every loss up to the limit, the origin's among them, leaves every byte.
func TestEveryLossUpToTheLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	for _, n := range []int{2, 3, 4, 5, 6} {
		t.Run(fmt.Sprintf("%d sites", n), func(t *testing.T) {
			all := sites(t, n)
			limit := all[0].status().SurvivesSites
			losses := subsets(n, limit)
			// A study each, large and small packs, from the sites in turn: what was
			// opened once is kept, and would hide what is lost.
			stored := make([][]instance, len(losses))
			for i := range losses {
				stored[i] = world(dimsetest.World{Seed: uint64(510 + 100*n + i), Patients: 1, PerSeries: 5})
				all[losses[i][0]].cstore(stored[i])
			}
			for i := range stored {
				for _, reads := range all {
					reads.protected(limit, studies(stored[i])...)
				}
			}
			for i, gone := range losses {
				left := 0
				for slices.Contains(gone, left) {
					left++
				}
				// A node that was killed a moment ago knows what is committed once somebody
				// leads it.
				all[left].protected(limit, studies(stored[i])...)
				for _, g := range gone {
					all[g].kill()
				}
				all[left].opens(fmt.Sprintf("at site %d without %v", left, gone), stored[i])
				for _, g := range gone {
					again(t, all[g])
				}
				for _, g := range gone {
					all[left].sees("alive", all[g])
				}
			}
		})
	}
}

// subsets are all sets of exactly so many of n, of each the lowest first.
func subsets(n, size int) (all [][]int) {
	for bits := range 1 << n {
		var set []int
		for i := range n {
			if bits>>i&1 == 1 {
				set = append(set, i)
			}
		}
		if len(set) == size {
			all = append(all, set)
		}
	}
	return all
}

// Whoever has a holder's disk without a member's node key reads no name and no pixel,
// and a witness never has either.
func TestHeldShardsRevealNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	all := sites(t, 3)
	witness := start(t, joining("Tower", all[0], all[0].token()), func(o *proc.Options) { o.Args = append(o.Args, "--witness") })
	stored := world(dimsetest.World{Seed: 541, Patients: 2, PerSeries: 4})
	all[0].cstore(stored)
	all[1].protected(1, studies(stored)...)
	backup := filepath.Join(t.TempDir(), "backup")
	all[1].cli(0, "backup", backup, "--data", all[1].Data())
	all[1].stop()
	witness.stop()
	if held := sizeOf(t, filepath.Join(all[1].Data(), "bulk")); held == 0 {
		t.Fatal("the holder holds nothing")
	}
	secrets := secretsOf(t, stored)
	for name, dir := range map[string]string{
		"the holder's bulk/": filepath.Join(all[1].Data(), "bulk"), "the backup's bulk/": filepath.Join(backup, "bulk"),
		"the witness's bulk/": filepath.Join(witness.Data(), "bulk"),
	} {
		for what, secret := range secrets {
			if at := contains(t, dir, secret); at != "" {
				t.Errorf("%s has %s in %s", name, what, at)
			}
		}
	}
	// The search finds what is there to be found.
	found := false
	for _, secret := range secrets {
		found = found || contains(t, filepath.Join(all[0].Data(), "staging"), secret) != "" || contains(t, filepath.Join(all[0].Data(), "catalog"), secret) != ""
	}
	if !found {
		t.Error("nothing that is looked for is anywhere: the search proves nothing")
	}
}

// secretsOf are patients' names, UIDs and runs of pixels.
func secretsOf(t *testing.T, all []instance) map[string][]byte {
	t.Helper()
	secrets := map[string][]byte{}
	for _, in := range all[:4] {
		i := bytes.Index(in.data, []byte{0x10, 0x00, 0x10, 0x00}) // (0010,0010), little endian
		if i >= 0 && len(in.data) > i+40 {
			if name := bytes.TrimRight(in.data[i+8:i+8+16], " \x00"); len(name) >= 8 {
				secrets["a patient's name of "+in.name] = name[:8]
			}
		}
		secrets["a SOP Instance UID of "+in.name] = []byte(in.sop)
		if len(in.data) > 4096 {
			secrets["a run of pixels of "+in.name] = in.data[len(in.data)-600 : len(in.data)-568]
		}
	}
	for what, s := range secrets {
		if bytes.Count(s, s[:1]) == len(s) {
			delete(secrets, what) // a run of zeros is everywhere
		}
	}
	return secrets
}

// contains returns the file below a folder that has a string; "": none has.
func contains(t *testing.T, dir string, secret []byte) (at string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || at != "" {
			return err
		}
		b, err := os.ReadFile(name)
		if bytes.Contains(b, secret) {
			at = strings.TrimPrefix(name, dir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// sizeOf is the bytes of all files below a folder.
func sizeOf(t *testing.T, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			info, infoErr := entry.Info()
			if infoErr != nil {
				return infoErr
			}
			n += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A modality is told that it may delete its copy while one site is down, and not by
// a node that is cut off from all others.
func TestCommitmentNeedsTheOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	all := sites(t, 5)
	first, second, third := world(dimsetest.World{Seed: 551, Patients: 1, PerSeries: 4}), world(dimsetest.World{Seed: 552, Patients: 1, PerSeries: 4}), world(dimsetest.World{Seed: 553, Patients: 1, PerSeries: 4})
	all[0].cstore(first)
	if r := all[0].tryCommit("E2E", "2.25.5510", soon, first...); r == nil || len(r.Failed) > 0 || len(r.Committed) != len(first) {
		t.Errorf("with all sites up: %+v", r)
	}
	all[4].kill()
	all[0].cstore(second)
	if r := all[0].tryCommit("E2E", "2.25.5520", soon, second...); r == nil || len(r.Failed) > 0 || len(r.Committed) != len(second) {
		t.Errorf("with one site down: %+v", r)
	}
	for _, n := range all[1:4] {
		n.kill()
	}
	all[0].cstore(third)
	if r := all[0].tryCommit("E2E", "2.25.5530", 8*time.Second, third...); r != nil {
		t.Errorf("alone it commits: %+v", r)
	}
	all[0].opens("alone", append(append(slices.Clone(first), second...), third...))
}

// Layouts follow who joins, is drained and is lost; a drained node is empty in the end.
func TestLayoutsFollowMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	all := sites(t, 4)
	stored := world(dimsetest.World{Seed: 561, Patients: 2, PerSeries: 5})
	all[0].cstore(stored)
	all[3].protected(1, studies(stored)...)
	before := all[0].status().LayoutVersion
	fifth := start(t, at("Site5"), packing, joining("Site5", all[0], all[0].token()))
	fifth.striped(5)
	fifth.protected(2, studies(stored)...)
	if now := fifth.status().LayoutVersion; now <= before {
		t.Errorf("layout version %d, before %d", now, before)
	}
	drained, drains := all[2].id(), all[0].status().LayoutVersion
	all[0].cli(0, "drain", drained, "--data", all[0].Data())
	for _, s := range studies(stored) {
		eventually(t, spreadTime, "nothing of "+s+" is at the drained node", func() bool {
			for _, p := range fifth.protection(s).Packs {
				for _, h := range p.Shards {
					if h.Node == drained && h.State != "virtual" {
						return false
					}
				}
			}
			return true
		})
	}
	// The drained node has its say in that, whatever was under way when it was drained.
	eventually(t, spreadTime, "the change of the layout is over", func() bool {
		now := fifth.status()
		return now.LayoutVersion > drains && now.Layout.From == 0
	})
	all[2].kill()
	fifth.opens("without the drained node", stored)
}
