package e2e

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pelago/chaos/proc"
	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// tables lists the tables in which packs rest, with their sizes.
func tables(t *testing.T, n *node) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	err := filepath.WalkDir(filepath.Join(n.Data(), "bulk"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".sst" {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			all[name] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// restingStudies stores studies one by one, each packed into a table of its own,
// and returns them with their tables.
func restingStudies(t *testing.T, n *node, count int) (all [][]instance, at []string) {
	t.Helper()
	known := tables(t, n)
	for i := range count {
		var study []instance
		for slice := range 6 {
			ct := dimsetest.CT(uint64(8100+i), slice)
			ct.Rows, ct.Columns = 128, 128
			study = append(study, made(ct))
		}
		n.cstore(study)
		n.pack()
		now := tables(t, n)
		var fresh []string
		for name := range now {
			if _, ok := known[name]; !ok {
				fresh = append(fresh, name)
			}
		}
		if len(fresh) != 1 {
			t.Fatalf("packing a study made tables %v", fresh)
		}
		known, all, at = now, append(all, study), append(at, fresh[0])
	}
	// Staging keeps the segment that it appends to, and what is lost is taken from
	// there as long as it can be: a start lets go of it.
	n.stop()
	n.restart()
	return all, at
}

// rot flips bytes in the middle of a file.
func rot(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	for _, at := range []int64{info.Size() / 4, info.Size() / 2} {
		if _, err := f.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] ^= 0x55
		}
		if _, err := f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
}

// retrieveLost asks for a study of which something is lost over C-GET and
// returns the final response.
func (n *node) retrieveLost(study []instance) scu.Progress {
	n.t.Helper()
	client, err := scu.Dial(n.t.Context(), n.target("E2E"), scu.ProposeGet(dimse.StudyRoot, kinds(study)))
	if err != nil {
		n.t.Fatal(err)
	}
	byUID := map[string]instance{}
	for _, in := range study {
		byUID[in.sop] = in
	}
	keys := identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {study[0].study}})
	var last scu.Progress
	for p := range client.Get(n.t.Context(), scu.Query{Root: dimse.StudyRoot, Identifier: keys}, func(_ context.Context, in *scu.Incoming) error {
		sum, err := hashOf(in.Data)
		if err == nil && sum != byUID[in.Instance].hash {
			n.t.Errorf("instance %s of a damaged study came back with other bytes", in.Instance)
		}
		return err
	}) {
		last = p
	}
	_ = client.Abort() // a failed sub-operation may have cost the association
	return last
}

// lost checks that a study is answered with a clear error, and that the others
// are served.
func (n *node) lost(where string, study []instance, rest [][]instance) {
	n.t.Helper()
	failed := 0
	for _, in := range study {
		answer, err := n.try(http.MethodGet, "/dicom-web/studies/"+in.study+"/series/"+in.series+"/instances/"+in.sop, nil, http.Header{"Accept": {asStored}})
		status := 0
		if err == nil {
			status = answer.StatusCode
			_, err = io.Copy(io.Discard, answer.Body)
			_ = answer.Body.Close()
		}
		switch {
		case err != nil && failed == 0:
			failed++ // found out while it was sent: the connection is cut
		case err == nil && status == http.StatusInternalServerError:
			failed++
		case err != nil || status != http.StatusOK: // rot need not touch every instance
			n.t.Errorf("%s: WADO-RS of a lost instance: %d %v", where, status, err)
		}
	}
	if failed == 0 {
		n.t.Errorf("%s: WADO-RS serves all of what was destroyed", where)
	}
	last := n.retrieveLost(study)
	want := dimse.UnableToPerformSubs
	if failed < len(study) {
		want = dimse.SubsCompleteWithFailures
	}
	if last.Status != want || last.Failed != failed || len(last.FailedUIDs) != failed {
		n.t.Errorf("%s: C-GET answers %+v, want status %v with %d failed", where, last, want, failed)
	}
	// It is still found, and said to be unavailable: what is lost is not what was
	// never there.
	if found := n.availability(study); found != "UNAVAILABLE" {
		n.t.Errorf("%s: QIDO-RS finds the study %s", where, found)
	}
	for _, other := range rest {
		n.cget(other).same(n.t, "C-GET of the rest, "+where, other)
		n.wado(other).same(n.t, "WADO-RS of the rest, "+where, other)
	}
	for _, other := range rest {
		if found := n.availability(other); found != "ONLINE" {
			n.t.Errorf("%s: QIDO-RS finds another study %s", where, found)
		}
	}
	n.healthy()
}

// availability is what QIDO-RS answers of a study's.
func (n *node) availability(study []instance) string {
	n.t.Helper()
	return strings.Join(n.qido("/dicom-web/studies?StudyInstanceUID="+study[0].study, "00080056"), ",")
}

// reports checks that verify says what is wrong, and nothing else.
func (n *node) reports(where string, study []instance) {
	n.t.Helper()
	report := n.verify(1)
	if len(report.Findings) == 0 {
		n.t.Errorf("%s: verify found nothing", where)
	}
	named := false
	for _, f := range report.Findings {
		for _, in := range study {
			named = named || strings.Contains(f.Object, in.sop)
		}
	}
	if !named {
		n.t.Errorf("%s: verify names no instance of the damaged study: %+v", where, report.Findings)
	}
}

// smallCaches makes a node read what rests on disk.
func smallCaches(o *proc.Options) {
	o.Config = "[store]\ncache = '1MiB'\nchunks = '1MiB'\n"
}

func TestDamagedTables(t *testing.T) {
	missing := func(t *testing.T, name string) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	emptied := func(t *testing.T, name string) {
		if err := os.Truncate(name, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		running bool // while the node runs
		damage  func(t *testing.T, name string)
	}{
		{"rotten, stopped", false, rot},
		{"missing, stopped", false, missing},
		{"emptied, stopped", false, emptied},
		{"rotten, running", true, rot},
		{"emptied, running", true, emptied},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, smallCaches)
			all, at := restingStudies(t, n, 4)
			if c.running {
				n.stop() // so that nothing of it is in memory
				n.restart()
			} else {
				n.stop()
			}
			c.damage(t, at[1])
			if !c.running {
				n.restart()
			}
			rest := slices.Concat(all[:1], all[2:])
			n.lost("after the damage", all[1], rest)
			n.reports("after the damage", all[1])
			n.kill()
			n.restart()
			n.lost("after a restart", all[1], rest)
			n.reports("after a restart", all[1])

			// Storing goes on, and what was lost is taken again from whoever has it.
			further := world(dimsetest.World{Seed: 82, Patients: 2})
			n.cstore(further)
			n.pack()
			n.cget(further).same(t, "C-GET of what came later", further)
		})
	}
}

// What was lost can be sent again by whoever still has it.
func TestLostInstancesAreTakenAgain(t *testing.T) {
	n := start(t, smallCaches)
	all, at := restingStudies(t, n, 2)
	n.stop()
	if err := os.Remove(at[0]); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.lost("after the damage", all[0], all[1:])
	n.cstore(all[0])
	n.cget(all[0]).same(t, "C-GET after sending again", all[0])
	if found := n.availability(all[0]); found != "ONLINE" {
		t.Errorf("sent again, QIDO-RS finds the study %s", found)
	}
	n.pack()
	n.cget(all[0]).same(t, "C-GET after packing again", all[0])
	n.kill()
	n.restart()
	n.cget(all[0]).same(t, "C-GET after a restart", all[0])
	n.verifyClean()
}

// Rot in staging is found by its checksum: those instances fail, the rest is
// served.
func TestRottenStagingSegment(t *testing.T) {
	n := start(t, func(o *proc.Options) { o.Config = "[store]\nquiet = '1h'\ngather = '1h'\n" })
	var all []instance
	for slice := range 20 {
		ct := dimsetest.CT(83, slice)
		ct.Rows, ct.Columns = 128, 128
		all = append(all, made(ct))
	}
	n.cstore(all)
	n.stop()
	segments, err := filepath.Glob(filepath.Join(n.Data(), "staging", "*"))
	if err != nil {
		t.Fatal(err)
	}
	segments = slices.DeleteFunc(segments, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || info.Size() < 100_000
	})
	if len(segments) != 1 {
		t.Fatalf("segments %v", segments)
	}
	f, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("rot, in the middle of what was acknowledged"), 300_000); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	n.restart()
	last := n.retrieveLost(all)
	if last.Status != dimse.SubsCompleteWithFailures || last.Failed < 1 || last.Failed > 2 || last.Completed != len(all)-last.Failed {
		t.Errorf("C-GET answers %+v", last)
	}
	if report := n.verify(1); len(report.Findings) == 0 {
		t.Error("verify found nothing")
	}
	n.healthy()
	// Packing leaves the broken ones where they are.
	eventually(t, soon, "the rest is packed", func() bool {
		answer := n.do(http.MethodPost, "/api/pack", nil, nil)
		readAll(t, answer)
		return n.status().BulkBytes > 0
	})
	if again := n.retrieveLost(all); again.Failed != last.Failed {
		t.Errorf("C-GET after packing answers %+v", again)
	}
}
