package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// files writes instances into a folder of the test.
func files(t testing.TB, all []instance) string {
	t.Helper()
	dir := t.TempDir()
	for i, in := range all {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.dcm", i)), in.file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDcmtkEchoscu(t *testing.T) {
	n := start(t)
	host, port := n.hostPort()
	dimsetest.Run(t, "echoscu", "-aec", n.AE(), host, port)
	dimsetest.Run(t, "echoscu", "-aec", "ANY-SCP", "-pts", "38", "-ppc", "128", host, port)
}

// What storescu and dcmsend send arrives as it arrives at a storescp that keeps
// bits, and as synthetic images are written it is what lies on disk.
func TestDcmtkStores(t *testing.T) {
	all := world(dimsetest.World{Seed: 41, Patients: 14, StudiesPerPatient: 1, PerSeries: 3})
	dir := files(t, all)
	for name, args := range map[string][]string{
		"storescu": {"storescu", "+sd"}, "dcmsend": {"dcmsend", "+sd"},
	} {
		t.Run(name, func(t *testing.T) {
			n := start(t)
			host, port := n.hostPort()
			dimsetest.Run(t, args[0], append(args[1:], "-aec", n.AE(), host, port, dir)...)
			n.counts(len(all))
			n.cget(all).same(t, "C-GET", all)
		})
	}
}

func TestDcmtkStoresRealFilesAsStorescpReceivesThem(t *testing.T) {
	root := samples.Dir(t)
	n := start(t)
	direct, dir := storescp(t, "+B", "+xa")
	host, port := n.hostPort()
	for _, folder := range []string{"ct/single", "mr/single", "sr", "us", "enhanced-mr", "seg"} {
		for _, to := range []string{port, direct} {
			out, err := dimsetest.TryRun(t, "dcmsend", "+sd", "+r", "-nh", "-nuc", "-aec", "PELAGO", host, to, filepath.Join(root, folder))
			if err != nil && !strings.Contains(out, "invalid") && !strings.Contains(out, "W: ") {
				t.Errorf("dcmsend of %s: %v\n%s", folder, err, tail(out, 10))
			}
		}
	}
	want := received(t, dir)
	if len(want) < 50 {
		t.Fatalf("storescp received %d files", len(want))
	}
	// Where samples share a UID storescp keeps the last and we the first.
	shared := map[string]int{}
	for _, in := range loadCorpus(t).valid {
		shared[in.sop]++
	}
	got := n.held()
	compared := 0
	for name, file := range want {
		_, sop, _ := strings.Cut(name, ".")
		ours, ok := got[sop]
		switch {
		case !ok && name == "UNKNOWN.31":
			// dcmsend warns that it sends this one over a context of another
			// class, and is refused for that.
		case !ok:
			t.Errorf("%s did not arrive", name)
		case shared[sop] > 1 || ours.syntax != file.syntax:
		case ours.hash != file.hash:
			t.Errorf("%s arrived otherwise than at storescp", name)
		default:
			compared++
		}
	}
	if compared < 30 {
		t.Errorf("only %d of %d could be compared", compared, len(want))
	}
}

// held retrieves everything the node can find, over WADO-RS, by SOP Instance UID.
func (n *node) held() map[string]arrival {
	n.t.Helper()
	got := &arrivals{}
	for _, study := range n.qido("/dicom-web/studies", "0020000D") {
		n.parts(n.do(http.MethodGet, "/dicom-web/studies/"+study, nil, http.Header{"Accept": {asStored}}), got)
	}
	return got.seen
}

// qido lists an attribute of all matches of a search.
func (n *node) qido(path, tag string) []string {
	n.t.Helper()
	var found []map[string]struct{ Value []any }
	n.call(http.MethodGet, path, nil, &found)
	var all []string
	for _, match := range found {
		if v := match[tag].Value; len(v) > 0 {
			all = append(all, fmt.Sprint(v[0]))
		}
	}
	return all
}

// findscu asks and returns how many responses came, and the first as dcm2json
// prints it.
func (n *node) findscu(args ...string) (count int, first jsonDataset) {
	n.t.Helper()
	host, port := n.hostPort()
	dir := n.t.TempDir()
	dimsetest.Run(n.t, "findscu", append(args, "-X", "-od", dir, "-aec", n.AE(), host, port)...)
	names, err := filepath.Glob(filepath.Join(dir, "rsp*.dcm"))
	if err != nil {
		n.t.Fatal(err)
	}
	if len(names) > 0 {
		if err := json.Unmarshal([]byte(dimsetest.Run(n.t, "dcm2json", "-q", names[0])), &first); err != nil {
			n.t.Fatal(err)
		}
	}
	return len(names), first
}

func TestDcmtkFindscu(t *testing.T) {
	w := dimsetest.World{Seed: 42, Patients: 30, StudiesPerPatient: 2, SeriesPerStudy: 2, PerSeries: 3}
	all := world(w)
	n := start(t)
	n.cstore(all)
	n.counts(len(all))
	first := slices.Collect(w.Study(0, 0))
	text := func(match jsonDataset, tag string) string {
		if v := match[tag].Value; len(v) > 0 {
			return strings.Trim(string(v[0]), `"`)
		}
		return ""
	}
	for _, c := range []struct {
		name  string
		args  []string
		count int
		tag   string // of the first response
		value string
	}{
		{"all studies, study root", []string{"-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"}, 60, "", ""},
		{"all studies, patient root", []string{"-P", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID", "-k", "StudyInstanceUID"}, 60, "", ""},
		{"all patients", []string{"-P", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID"}, 30, "", ""},
		{"all patients, patient/study only", []string{"-O", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID"}, 30, "", ""},
		{"one patient's studies", []string{"-P", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=" + first[0].PatientID, "-k", "StudyInstanceUID", "-k", "NumberOfStudyRelatedInstances"}, 2, "00201208", "6"},
		{"accession", []string{"-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "AccessionNumber=" + first[0].AccessionNumber, "-k", "StudyInstanceUID"}, 1, "0020000D", first[0].StudyInstanceUID},
		{"series of a study", []string{"-S", "-k", "QueryRetrieveLevel=SERIES", "-k", "StudyInstanceUID=" + first[0].StudyInstanceUID, "-k", "SeriesInstanceUID", "-k", "NumberOfSeriesRelatedInstances"}, 2, "00201209", "3"},
		{"images of a series", []string{
			"-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", "StudyInstanceUID=" + first[0].StudyInstanceUID,
			"-k", "SeriesInstanceUID=" + first[0].SeriesInstanceUID, "-k", "SOPInstanceUID", "-k", "Rows",
		}, 3, "00280010", "8"},
		{"one image", []string{
			"-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", "StudyInstanceUID=" + first[4].StudyInstanceUID,
			"-k", "SeriesInstanceUID=" + first[4].SeriesInstanceUID, "-k", "SOPInstanceUID=" + first[4].SOPInstanceUID,
		}, 1, "00080018", first[4].SOPInstanceUID},
		{"a list of UIDs", []string{"-S", "-k", "QueryRetrieveLevel=STUDY", "-k", `StudyInstanceUID=` + all[0].study + `\` + all[20].study + `\1.2.3`}, 2, "", ""},
		{"nobody", []string{"-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=Nobody*", "-k", "StudyInstanceUID"}, 0, "", ""},
		{"a name that ignores case and accents", []string{"-S", "-k", "SpecificCharacterSet=ISO_IR 100", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=MULLER*", "-k", "StudyInstanceUID"}, 4, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			count, found := (&node{n.Node, t}).findscu(c.args...)
			if count != c.count {
				t.Fatalf("%d responses, want %d", count, c.count)
			}
			if c.tag != "" && text(found, c.tag) != c.value {
				t.Errorf("%s is %q, want %q", c.tag, text(found, c.tag), c.value)
			}
		})
	}
	host, port := n.hostPort()
	t.Run("cancel", func(t *testing.T) {
		out, _ := dimsetest.TryRun(t, "findscu", "-v", "-S", "--cancel", "2", "-k", "QueryRetrieveLevel=IMAGE", "-k", "StudyInstanceUID", host, port)
		if strings.Count(out, "Pending") < 2 && !strings.Contains(out, "Cancel") {
			t.Errorf("findscu --cancel 2:\n%s", tail(out, 20))
		}
		n.healthy()
	})
	t.Run("a missing level is refused", func(t *testing.T) {
		out, _ := dimsetest.TryRun(t, "findscu", "-v", "-d", "-S", "-k", "StudyInstanceUID", host, port)
		if !strings.Contains(strings.ToLower(out), "0xa900") {
			t.Errorf("no A900:\n%s", tail(out, 20))
		}
	})
}

func TestDcmtkMovescu(t *testing.T) {
	all := world(dimsetest.World{Seed: 43, Patients: 3, SeriesPerStudy: 2, PerSeries: 4})
	n := start(t)
	n.cstore(all)
	host, port := n.hostPort()
	to, dir := storescp(t, "+B", "+xa")
	n.register("STORESCP", to)
	move := func(destination, model string, keys ...string) (string, error) {
		args := []string{"-d", model, "-aet", "MOVER", "-aec", n.AE(), "-aem", destination}
		for _, k := range keys {
			args = append(args, "-k", k)
		}
		return dimsetest.TryRun(t, "movescu", append(args, host, port)...)
	}
	one := all[0]
	if out, err := move("STORESCP", "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID="+one.study); err != nil {
		t.Errorf("a study: %v\n%s", err, tail(out, 20))
	}
	moved := func(want []instance) {
		t.Helper()
		got := received(t, dir)
		if len(got) != len(want) {
			t.Errorf("%d files arrived, want %d", len(got), len(want))
		}
		for _, in := range want {
			found := false
			for name, file := range got {
				found = found || strings.HasSuffix(name, in.sop) && file.hash == in.hash && file.syntax == in.syntax
			}
			if !found {
				t.Errorf("%s did not arrive as it was stored", in.name)
			}
		}
	}
	moved(all[:8])
	if out, err := move("STORESCP", "-P", "QueryRetrieveLevel=SERIES", "PatientID=W43-0000001", "StudyInstanceUID="+all[8].study, "SeriesInstanceUID="+all[8].series); err != nil {
		t.Errorf("a series: %v\n%s", err, tail(out, 20))
	}
	moved(all[:12])
	if out, err := move("STORESCP", "-P", "QueryRetrieveLevel=PATIENT", "PatientID=W43-0000002"); err != nil {
		t.Errorf("a patient: %v\n%s", err, tail(out, 20))
	}
	moved(slices.Concat(all[:12], all[16:]))
	if out, _ := move("NOBODY", "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID="+one.study); !strings.Contains(strings.ToLower(out), "a801") {
		t.Errorf("an unknown destination:\n%s", tail(out, 20))
	}
	n.register("DEAF", freePort(t))
	if out, _ := move("DEAF", "-S", "QueryRetrieveLevel=STUDY", "StudyInstanceUID="+one.study); !strings.Contains(strings.ToLower(out), "a702") {
		t.Errorf("a destination that does not answer:\n%s", tail(out, 20))
	}
	// movescu that listens itself.
	own, into := freePort(t), t.TempDir()
	n.register("MOVER", own)
	out, err := dimsetest.TryRun(t, "movescu", "-S", "-aet", "MOVER", "-aec", n.AE(), "-aem", "MOVER", "+P", own, "+xa", "-od", into,
		"-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID="+one.study, host, port)
	if err != nil || len(received(t, into)) != 8 {
		t.Errorf("movescu to itself: %v, %d files\n%s", err, len(received(t, into)), tail(out, 20))
	}
}

func TestDcmtkGetscu(t *testing.T) {
	all := world(dimsetest.World{Seed: 44, Patients: 2, SeriesPerStudy: 2, PerSeries: 5})
	n := start(t)
	n.cstore(all)
	host, port := n.hostPort()
	for i, model := range []string{"-S", "-P"} {
		if i == 1 {
			n.pack()
		}
		dir := t.TempDir()
		dimsetest.Run(t, "getscu", model, "+B", "-od", dir, "-aec", n.AE(), "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=W44-0000000", "-k", "StudyInstanceUID="+all[0].study, host, port)
		got := received(t, dir)
		if len(got) != 10 {
			t.Errorf("%s: %d files, want 10", model, len(got))
		}
		for _, in := range all[:10] {
			found := false
			for name, file := range got {
				found = found || strings.HasSuffix(name, in.sop) && file.hash == in.hash
			}
			if !found {
				t.Errorf("%s: %s did not come back as it was stored", model, in.name)
			}
		}
	}
}

// dcmqrscp takes what we move to it, is queried for it, and moves it back to us.
func TestDcmtkDcmqrscpAsDestinationAndSource(t *testing.T) {
	all := world(dimsetest.World{Seed: 45, Patients: 2, PerSeries: 5})
	n := start(t)
	n.cstore(all)
	host, port := n.hostPort()
	own, dir := freePort(t), t.TempDir()
	config := fmt.Sprintf(`NetworkTCPPort = %s
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
pelago = (PELAGO, %s, %s)
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
QRSCP %s RW (100, 1024mb) ANY
AETable END
`, own, host, port, dir)
	file := filepath.Join(t.TempDir(), "dcmqrscp.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, "dcmqrscp", "-c", file)
	eventually(t, soon, "dcmqrscp answers", func() bool {
		_, err := dimsetest.TryRun(t, "echoscu", "-aec", "QRSCP", host, own)
		return err == nil
	})
	n.register("QRSCP", own)
	if failed := n.cmove("QRSCP", all); len(failed) > 0 {
		t.Errorf("failed: %v", failed)
	}
	out := dimsetest.Run(t, "findscu", "-v", "-S", "-aec", "QRSCP", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID", host, own)
	for _, study := range studies(all) {
		if !strings.Contains(out, study) {
			t.Errorf("dcmqrscp does not know study %s", study)
		}
	}
	// The node has everything already: a re-send of the same is a success.
	if out, err := dimsetest.TryRun(t, "movescu", "-S", "-aet", "E2E", "-aec", "QRSCP", "-aem", "PELAGO", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID="+all[0].study, host, own); err != nil {
		t.Errorf("movescu from dcmqrscp to us: %v\n%s", err, tail(out, 20))
	}
	n.counts(len(all))
	n.cget(all).same(t, "C-GET", all)
}

// tlsNode is a node with a DICOM TLS port; with clientCA only clients whose
// certificate it has signed get in.
func tlsNode(t *testing.T, dir string, clientCA bool) (*node, string) {
	t.Helper()
	port := freePort(t)
	n := start(t, func(o *proc.Options) {
		o.Config = fmt.Sprintf("[dicom]\nlisten_tls = '127.0.0.1:%s'\ncertificate = '%s'\nkey = '%s'\n",
			port, filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
		if clientCA {
			o.Config += fmt.Sprintf("client_ca = '%s'\n", filepath.Join(dir, "ca.crt"))
		}
	})
	return n, port
}

func TestDcmtkTLS(t *testing.T) {
	dir := t.TempDir()
	ca := dimsetest.NewAuthority(t)
	ca.WriteFile(t, dir, "ca")
	ca.IssueFiles(t, dir, "server")
	ca.IssueFiles(t, dir, "client")
	dimsetest.NewAuthority(t).IssueFiles(t, dir, "stranger")
	in := func(name string) string { return filepath.Join(dir, name) }
	client := []string{"+tls", in("client.key"), in("client.crt"), "+cf", in("ca.crt")}
	stranger := []string{"+tls", in("stranger.key"), in("stranger.crt"), "+cf", in("ca.crt")}
	all := world(dimsetest.World{Seed: 46, Patients: 2, PerSeries: 3})
	folder := files(t, all)

	n, port := tlsNode(t, dir, false)
	dimsetest.Run(t, "echoscu", "+tla", "+cf", in("ca.crt"), "127.0.0.1", port)
	dimsetest.Run(t, "echoscu", append(slices.Clone(client), "127.0.0.1", port)...)
	dimsetest.Run(t, "storescu", "+tla", "+cf", in("ca.crt"), "+sd", "127.0.0.1", port, folder)
	n.cget(all).same(t, "C-GET", all)
	if out, err := dimsetest.TryRun(t, "echoscu", "-ta", "5", "-to", "5", "127.0.0.1", port); err == nil {
		t.Errorf("without TLS:\n%s", out)
	}
	n.healthy()

	n, port = tlsNode(t, dir, true)
	dimsetest.Run(t, "storescu", append(slices.Clone(client), "+sd", "127.0.0.1", port, folder)...)
	n.cget(all).same(t, "C-GET", all)
	if out, err := dimsetest.TryRun(t, "echoscu", "+tla", "+cf", in("ca.crt"), "127.0.0.1", port); err == nil {
		t.Errorf("without a client certificate:\n%s", out)
	}
	if out, err := dimsetest.TryRun(t, "echoscu", append(stranger, "127.0.0.1", port)...); err == nil {
		t.Errorf("with a stranger's certificate:\n%s", out)
	}

	// A destination that is called over TLS.
	own, into := freePort(t), t.TempDir()
	process(t, "storescp", "+tls", in("client.key"), in("client.crt"), "+cf", in("ca.crt"), "+B", "+xa", "-od", into, own)
	listening(t, own)
	n.register("SECURE", own, "--tls")
	n.cli(0, "echo", "SECURE", "--data", n.Data())
	if failed := n.cmove("SECURE", all); len(failed) > 0 || len(received(t, into)) != len(all) {
		t.Errorf("C-MOVE over TLS: %v failed, %d arrived", failed, len(received(t, into)))
	}
	n.healthy()
}

// A registered AE must use TLS with its own certificate where the registry says
// so, and an AE without a right is refused that service.
func TestRegistryRightsAreEnforced(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 47, Patients: 1})
	n.cstore(all)
	host, port := n.hostPort()
	n.register("ONLYECHO", "0", "--rights", "echo")
	dimsetest.Run(t, "echoscu", "-aet", "ONLYECHO", host, port)
	if out, err := dimsetest.TryRun(t, "storescu", "-aet", "ONLYECHO", "+sd", host, port, files(t, all)); err == nil {
		t.Errorf("storescu without the right:\n%s", out)
	}
	if out, err := dimsetest.TryRun(t, "findscu", "-S", "-aet", "ONLYECHO", "-k", "QueryRetrieveLevel=STUDY", host, port); err == nil {
		t.Errorf("findscu without the right:\n%s", out)
	}
	n.cli(0, "ae", "remove", "ONLYECHO", "--data", n.Data())
}

// The samples' DICOMDIR media can be sent by dcmsend from its directory.
func TestDcmtkSendsFromADICOMDIR(t *testing.T) {
	root := filepath.Join(samples.Dir(t), "dicomdir", "pydicom-fileset")
	n := start(t)
	host, port := n.hostPort()
	dimsetest.Run(t, "dcmsend", "+rd", "-aec", n.AE(), host, port, filepath.Join(root, "DICOMDIR"))
	n.counts(31)
}
