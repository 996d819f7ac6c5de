package e2e

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/admin"
	"pelago/node/ae"
)

// imported is what `pelago import --json` prints.
type imported struct {
	Stored  int `json:"stored"`
	Warned  int `json:"stored_with_warnings"`
	Skipped int `json:"stored_earlier"`
	Other   int `json:"not_dicom"`
	Refused []struct{ File, Reason string }

	Quarantined []string
}

func TestImportOfATree(t *testing.T) {
	n := start(t)
	good := world(dimsetest.World{Seed: 91, Patients: 3, SeriesPerStudy: 2, PerSeries: 4})
	dir := t.TempDir()
	for i, in := range good {
		folder := filepath.Join(dir, fmt.Sprint("patient ", i/8), fmt.Sprint("ünïcode ", i%8/4))
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, fmt.Sprint("image ", i)), in.file)
	}
	write(t, filepath.Join(dir, "readme.txt"), []byte("not an image at all, whatever its length may be: a text of some words"))
	write(t, filepath.Join(dir, "empty"), nil)
	write(t, filepath.Join(dir, "short.dcm"), good[0].file[:len(good[0].file)-10])
	var report imported
	n.cliJSON(1, &report, "import", "--json", "--data", n.Data(), dir)
	if report.Stored != len(good) || report.Other != 2 || len(report.Refused) != 1 || !strings.HasSuffix(report.Refused[0].File, "short.dcm") ||
		!strings.Contains(report.Refused[0].Reason, "C000") || !strings.Contains(report.Refused[0].Reason, "not stored: ") {
		t.Errorf("report %+v", report)
	}
	n.counts(len(good))
	n.cget(good).same(t, "C-GET", good)

	// Again, with the broken file gone: everything is known.
	if err := os.Remove(filepath.Join(dir, "short.dcm")); err != nil {
		t.Fatal(err)
	}
	n.cliJSON(0, &report, "import", "--json", "--data", n.Data(), dir)
	if report.Skipped+report.Stored != len(good) || len(report.Refused) != 0 {
		t.Errorf("second report %+v", report)
	}
	n.counts(len(good))
	n.cli(1, "import", "--data", n.Data(), filepath.Join(dir, "nowhere"))
}

func write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestImportOfAZip(t *testing.T) {
	n := start(t)
	good := world(dimsetest.World{Seed: 92, Patients: 2, PerSeries: 4})
	name := filepath.Join(t.TempDir(), "images.zip")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(f)
	for i, in := range good {
		part, err := w.Create(fmt.Sprint("folder/../", i, ".dcm")) // names are not trusted
		if err == nil {
			_, err = part.Write(in.file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	var report imported
	n.cliJSON(0, &report, "import", "--json", "--data", n.Data(), name)
	if report.Stored != len(good) {
		t.Errorf("report %+v", report)
	}
	n.cget(good).same(t, "C-GET", good)
	broken := filepath.Join(t.TempDir(), "broken.zip")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	write(t, broken, b[:len(b)/2])
	n.cliJSON(1, &report, "import", "--json", "--data", n.Data(), broken)
	if len(report.Refused) != 1 {
		t.Errorf("a broken archive: %+v", report)
	}
}

// The sample file-set, by its directories: the good ones name 31 files, one
// names none, and one that is cut short is refused.
func TestImportOfADICOMDIR(t *testing.T) {
	root := filepath.Join(samples.Dir(t), "dicomdir", "pydicom-fileset")
	for name, c := range map[string]struct{ code, stored int }{
		"DICOMDIR": {0, 31}, "DICOMDIR-bigEnd": {0, 31}, "DICOMDIR-implicit": {0, 31}, "DICOMDIR-reordered": {0, 31},
		"DICOMDIR-nopatient": {0, 31}, "DICOMDIR-empty.dcm": {0, 0}, "DICOMDIR-nooffset": {2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			// A DICOMDIR is known by its name: the file-set is laid out again around it.
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(root)); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, "DICOMDIR")); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "DICOMDIR"), b)
			n := start(t)
			r := n.cli(c.code, "import", "--json", "--data", n.Data(), filepath.Join(dir, "DICOMDIR"))
			if c.code != 0 {
				if r.Stderr == "" {
					t.Error("no reason was given")
				}
				n.empty()
				return
			}
			var report imported
			if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
				t.Fatal(err)
			}
			if report.Stored != c.stored || len(report.Refused) > 0 {
				t.Errorf("report %+v", report)
			}
			n.counts(c.stored)
		})
	}
}

// A DICOMDIR that leads out of its file-set reads nothing there.
func TestImportOfADICOMDIRThatLeadsOutside(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(samples.Dir(t), "dicomdir", "pydicom-fileset", "DICOMDIR"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	set := filepath.Join(dir, "set")
	if err := os.Mkdir(set, 0o700); err != nil {
		t.Fatal(err)
	}
	evil := strings.Replace(string(b), `77654033\CR1\6154`, `..\..\..\\etc\ps1`, 1)
	if evil == string(b) {
		t.Fatal("the sample DICOMDIR has other file ids")
	}
	write(t, filepath.Join(set, "DICOMDIR"), []byte(evil))
	n := start(t)
	if r := n.cli(2, "import", "--data", n.Data(), filepath.Join(set, "DICOMDIR")); !strings.Contains(r.Stderr, "outside") {
		t.Errorf("it said %s", r.Stderr)
	}
	n.empty()
}

// An import that the node's death or an interrupt ends goes on where it was.
func TestImportThatIsInterrupted(t *testing.T) {
	n := start(t)
	var good []instance
	for i := range 60 {
		ct := dimsetest.CT(93, i)
		ct.Rows, ct.Columns = 256, 256
		good = append(good, made(ct))
	}
	dir := files(t, good)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = n.Command(t.Context(), "import", "--data", n.Data(), "--parallel", "1", dir)
	}()
	eventually(t, soon, "some of it is stored", func() bool { return n.status().Instances > 3 })
	n.kill()
	<-ended
	n.restart()
	var report imported
	n.cliJSON(0, &report, "import", "--json", "--data", n.Data(), dir)
	if report.Stored+report.Skipped != len(good) || len(report.Refused) > 0 {
		t.Errorf("report %+v", report)
	}
	n.counts(len(good))
	n.cget(good).same(t, "C-GET", good)
	n.verifyClean()
}

func TestFind(t *testing.T) {
	n := start(t)
	w := dimsetest.World{Seed: 94, Patients: 14, StudiesPerPatient: 2, PerSeries: 2}
	all := world(w)
	n.cstore(all)
	n.counts(len(all))
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 28},
		{[]string{"--limit", "5"}, 5},
		{[]string{"PatientID=W94-0000003"}, 2},
		{[]string{"SMITH*"}, 2},
		{[]string{"PatientName=muller*"}, 2},
		{[]string{"--fuzzy", "Smyth"}, 2},
		{[]string{"--level", "series", "PatientID=W94-0000003"}, 2},
		{[]string{"--level", "instance", "PatientID=W94-0000003"}, 4},
		{[]string{"StudyDate=18000101-19000101"}, 0},
	} {
		var found []map[string]any
		n.cliJSON(0, &found, append([]string{"find", "--json", "--data", n.Data()}, c.args...)...)
		if len(found) != c.want {
			t.Errorf("find %v: %d, want %d", c.args, len(found), c.want)
		}
	}
	if r := n.cli(0, "find", "--data", n.Data(), "PatientName=Buc*"); !strings.Contains(r.Stdout, "Buc^Jérôme") {
		t.Errorf("find for people:\n%s", r.Stdout)
	}
	n.cli(2, "find", "--data", n.Data(), "NoSuchKeyword=1")
	var s admin.Status
	n.cliJSON(0, &s, "status", "--json", "--data", n.Data())
	if s.Studies != 28 || s.Instances != uint64(len(all)) {
		t.Errorf("status %+v", s)
	}
	n.cli(0, "status", "--data", n.Data())
	n.cli(0, "status", "--http", n.HTTP())
	n.cli(1, "status", "--data", t.TempDir())
}

func TestExportIsByteForByte(t *testing.T) {
	n := start(t)
	var some []instance
	for i, in := range loadCorpus(t).valid {
		if i%8 == 0 && !in.nonPatient() {
			some = append(some, in)
		}
	}
	some = waves(some)[0]
	n.cstore(some)
	to := t.TempDir()
	var report struct{ Written, Present int }
	n.cliJSON(0, &report, append([]string{"export", "--json", "--data", n.Data(), "--to", to}, studies(some)...)...)
	if report.Written != len(some) {
		t.Errorf("report %+v, want %d written", report, len(some))
	}
	got := &arrivals{}
	err := filepath.WalkDir(to, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		n.part(f, got)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got.same(t, "export", some)
	n.cliJSON(0, &report, append([]string{"export", "--json", "--data", n.Data(), "--to", to}, studies(some)...)...)
	if report.Written != 0 || report.Present != len(some) {
		t.Errorf("second report %+v", report)
	}
	n.cli(1, "export", "--data", n.Data(), "--to", t.TempDir(), "1.2.3.4.5")
}

func TestRegistryByCommand(t *testing.T) {
	n := start(t)
	d := listen(t)
	n.register("OWN", d.port, "--issuer", "HOSPITAL", "--rights", "echo,store")
	var list []ae.AE
	n.cliJSON(0, &list, "ae", "list", "--json", "--data", n.Data())
	if len(list) != 1 || list[0].Title != "OWN" || list[0].Issuer != "HOSPITAL" || list[0].Rights != (ae.Rights{Echo: true, Store: true}) {
		t.Errorf("list %+v", list)
	}
	if r := n.cli(0, "ae", "--data", n.Data()); !strings.Contains(r.Stdout, "echo,store") {
		t.Errorf("list for people:\n%s", r.Stdout)
	}
	var took struct{ Seconds float64 }
	n.cliJSON(0, &took, "echo", "OWN", "--json", "--data", n.Data())
	if took.Seconds <= 0 {
		t.Errorf("echo %+v", took)
	}
	n.cli(1, "echo", "NOBODY", "--data", n.Data())
	n.kill()
	n.restart()
	n.cliJSON(0, &list, "ae", "list", "--json", "--data", n.Data())
	if len(list) != 1 {
		t.Errorf("after SIGKILL the list is %+v", list)
	}
	n.cli(0, "ae", "remove", "OWN", "--data", n.Data())
	n.cli(1, "ae", "remove", "OWN", "--data", n.Data())
	n.cliJSON(0, &list, "ae", "list", "--json", "--data", n.Data())
	if len(list) != 0 {
		t.Errorf("after removal the list is %+v", list)
	}
	n.cli(2, "ae", "add", "A TITLE THAT IS FAR TOO LONG", "127.0.0.1", "--data", n.Data())
}

func TestDeleteAndUndelete(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 95, Patients: 3, SeriesPerStudy: 2, PerSeries: 2})
	n.cstore(all)
	n.counts(len(all))
	gone, rest := all[:4], all[4:]
	n.cli(0, "delete", gone[0].study, "--data", n.Data())
	absent := func(where string) {
		t.Helper()
		if found := n.qido("/dicom-web/studies", "0020000D"); len(found) != 2 {
			t.Errorf("%s: QIDO-RS finds %v", where, found)
		}
		answer, err := n.try("GET", "/dicom-web/studies/"+gone[0].study, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if readAll(t, answer); answer.StatusCode != 404 {
			t.Errorf("%s: WADO-RS: %s", where, answer.Status)
		}
		if last := n.retrieveLost(gone); last.Status != 0 || last.Completed != 0 {
			t.Errorf("%s: C-GET: %+v", where, last)
		}
		n.cget(rest).same(t, "C-GET of the rest, "+where, rest)
	}
	absent("after delete")
	n.kill()
	n.restart()
	absent("after SIGKILL")
	n.pack()
	absent("after packing")
	n.verifyClean()
	n.cli(0, "undelete", gone[0].study, "--data", n.Data())
	n.cget(all).same(t, "C-GET after undelete", all)
	n.counts(len(all))

	n.cli(0, "delete", all[0].study, "--series", all[0].series, "--instance", all[0].sop, "--data", n.Data())
	n.cget(all[1:]).same(t, "C-GET after deleting an instance", all[1:])
	// What is sent again after its deletion waits in quarantine.
	n.cstore(all[:1])
	n.cget(all[1:]).same(t, "C-GET after sending it again", all[1:])
	if held := n.conflicts(); len(held) != 1 || held[0].SOP != all[0].sop || held[0].Against != 0 {
		t.Errorf("conflicts %+v", held)
	}
	n.cli(0, "undelete", all[0].study, "--series", all[0].series, "--instance", all[0].sop, "--data", n.Data())
	n.cget(all).same(t, "C-GET after undelete of an instance", all)
	n.cli(1, "delete", "1.2.3.4.5.6", "--data", n.Data())
	n.verifyClean()
}

// A backup that is taken while senders store holds everything acknowledged
// before it, and is a node of its own once restored.
func TestBackupAndRestore(t *testing.T) {
	n := start(t)
	packed := world(dimsetest.World{Seed: 96, Patients: 4, PerSeries: 3})
	staged := world(dimsetest.World{Seed: 97, Patients: 4, PerSeries: 3})
	n.cstore(packed)
	n.pack()
	n.cstore(staged)
	n.register("OWN", "11199")
	n.cli(0, "delete", packed[0].study, "--data", n.Data())
	before := append(append([]instance(nil), packed[3:]...), staged...)

	all := &ledger{sent: map[string]instance{}, acknowledged: map[string]bool{}}
	s := &sender{n: n, ledger: all, seed: 9701}
	stopped := make(chan struct{})
	ctx := t.Context()
	go func() { defer close(stopped); s.run(ctx) }()
	to := filepath.Join(t.TempDir(), "backup")
	r := n.cli(0, "backup", to, "--json", "--data", n.Data())
	var end struct{ Directory string }
	if err := json.Unmarshal([]byte(r.Stdout), &end); err != nil || end.Directory != to {
		t.Errorf("backup --json: %v\n%s", err, r.Stdout)
	}
	n.cli(1, "backup", to, "--data", n.Data()) // it is not empty any more
	n.kill()
	<-stopped

	data := filepath.Join(t.TempDir(), "restored")
	var restored struct{ Data string }
	n.cliJSON(0, &restored, "restore", to, "--json", "--data", data)
	if restored.Data != data {
		t.Errorf("restore --json: %+v", restored)
	}
	if r, err := n.Command(t.Context(), "restore", to, "--data", data); err != nil || r.Code == 0 {
		t.Errorf("restoring over data: code %d, %v", r.Code, err)
	}
	other := start(t, func(o *proc.Options) { o.Data = data })
	other.cget(before).same(t, "C-GET from the restored node", before)
	for sop, in := range other.held() {
		if sent, ok := all.sent[sop]; ok && sent.hash != in.hash {
			t.Errorf("instance %s in the backup is not what was sent", sop)
		}
	}
	var list []ae.AE
	other.cliJSON(0, &list, "ae", "list", "--json", "--data", data)
	if len(list) != 1 || list[0].Title != "OWN" {
		t.Errorf("the restored registry is %+v", list)
	}
	if found := other.qido("/dicom-web/studies?StudyInstanceUID="+packed[0].study, "0020000D"); len(found) != 0 {
		t.Error("what was deleted is back")
	}
	other.verifyClean()
	further := world(dimsetest.World{Seed: 98, Patients: 1})
	other.cstore(further)
	other.cget(further).same(t, "C-GET", further)
	other.pack()
	other.verifyClean()
}

func TestConfigCommand(t *testing.T) {
	n := start(t)
	printed := n.cli(0, "config", "print")
	file := filepath.Join(t.TempDir(), "pelago.toml")
	write(t, file, []byte(printed.Stdout))
	n.cli(0, "config", "check", file)
	if again := n.cli(0, "config", "print", file); again.Stdout != printed.Stdout {
		t.Error("the printed configuration does not read back to itself")
	}
	write(t, file, []byte("site = ''\n[dicom]\nae = 'A TITLE THAT IS FAR TOO LONG'\n[http]\nlisten = '0.0.0.0:80'\n"))
	r := n.cli(2, "config", "check", file)
	for _, key := range []string{"site", "dicom.ae", "http.listen"} {
		if !strings.Contains(r.Stderr, key) {
			t.Errorf("check does not speak of %s:\n%s", key, r.Stderr)
		}
	}
	var version struct{ Version string }
	n.cliJSON(0, &version, "version", "--json")
	if version.Version == "" {
		t.Error("no version")
	}
	n.cli(0, "--help")
	n.cli(2, "nonsense")
}

// What verify prints for people and for programs, of a node with something in
// each place.
func TestVerifyCommand(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 99, Patients: 4, PerSeries: 2})
	n.cstore(all[:4])
	n.pack()
	n.cstore(all[4:])
	report := n.verifyClean()
	if report.Instances != uint64(len(all)) || report.Packs != 2 || report.Bytes == 0 {
		t.Errorf("report %+v", report)
	}
	if r := n.cli(0, "verify", "--data", n.Data()); !strings.Contains(r.Stdout, "0 findings") {
		t.Errorf("verify for people:\n%s", r.Stdout)
	}
}
