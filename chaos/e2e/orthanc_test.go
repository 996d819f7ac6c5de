package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// orthanc is a running Orthanc.
type orthanc struct {
	t         testing.TB
	port, url string
}

// startOrthanc runs Orthanc, which knows the node as modality pelago.
func startOrthanc(t testing.TB, n *node) orthanc {
	t.Helper()
	dir := t.TempDir()
	o := orthanc{t: t, port: freePort(t)}
	web := freePort(t)
	o.url = "http://127.0.0.1:" + web
	host, port := n.hostPort()
	number := func(text string) int {
		v, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	config, err := json.Marshal(map[string]any{
		"StorageDirectory": dir, "IndexDirectory": dir, "HttpPort": number(web), "DicomPort": number(o.port), "DicomAet": "ORTHANC",
		"RemoteAccessAllowed": false, "AuthenticationEnabled": false, "Plugins": []string{},
		"DicomAlwaysAllowStore": true, "DicomAlwaysAllowEcho": true, "DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true, "DicomAlwaysAllowMove": true,
		"DicomModalities": map[string]any{"pelago": map[string]any{
			"AET": n.AE(), "Host": host, "Port": number(port), "AllowStorageCommitment": true,
			"AllowEcho": true, "AllowFind": true, "AllowMove": true, "AllowStore": true, "AllowGet": true,
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "orthanc.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	process(t, "Orthanc", file)
	eventually(t, soon, "Orthanc answers", func() bool {
		answer, err := http.Get(o.url + "/system")
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
	})
	return o
}

// call asks Orthanc's API; a body makes it a POST.
func (o orthanc) call(path string, body, into any) {
	o.t.Helper()
	method, sent := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			o.t.Fatal(err)
		}
		method, sent = http.MethodPost, bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, o.url+path, sent)
	if err != nil {
		o.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	b := readAll(o.t, answer)
	if answer.StatusCode != http.StatusOK {
		o.t.Fatalf("Orthanc %s: %s\n%s", path, answer.Status, b)
	}
	if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			o.t.Fatalf("Orthanc %s: %v", path, err)
		}
	}
}

// holds checks that Orthanc has exactly these instances, byte for byte: its
// files keep the data sets that it received.
func (o orthanc) holds(how string, want []instance) {
	o.t.Helper()
	var ids []string
	o.call("/instances", nil, &ids)
	got := &arrivals{}
	for _, id := range ids {
		answer, err := http.Get(o.url + "/instances/" + id + "/file")
		if err != nil {
			o.t.Fatal(err)
		}
		in, err := read(o.t, id, readAll(o.t, answer))
		if err != nil {
			o.t.Fatal(err)
		}
		got.add(in.sop, arrival{in.class, in.syntax, in.hash})
	}
	got.same(o.t, how, want)
}

func TestOrthanc(t *testing.T) {
	n := start(t)
	o := startOrthanc(t, n)
	n.register("ORTHANC", o.port)
	theirs := world(dimsetest.World{Seed: 101, Patients: 3, PerSeries: 4})
	ours := world(dimsetest.World{Seed: 102, Patients: 3, PerSeries: 4})

	// Orthanc is filled by our client, and stores to the node.
	sender := scu.NewSender(scu.Target{Addr: "127.0.0.1:" + o.port, Called: "ORTHANC", Calling: "E2E"}, kinds(theirs), 1)
	for _, in := range theirs {
		if _, err := sender.Store(t.Context(), in.outgoing(), scu.Originator{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Error(err)
	}
	o.holds("C-STORE to Orthanc", theirs)
	o.call("/modalities/pelago/echo", map[string]any{}, nil)
	var ids []string
	o.call("/studies", nil, &ids)
	o.call("/modalities/pelago/store", map[string]any{"Resources": ids, "Synchronous": true}, nil)
	n.cget(theirs).same(t, "C-STORE from Orthanc", theirs)

	// It asks the node for storage commitment.
	var commitment struct{ Path string }
	o.call("/modalities/pelago/storage-commitment", map[string]any{"DicomInstances": []map[string]string{
		{"SOPClassUID": theirs[0].class, "SOPInstanceUID": theirs[0].sop}, {"SOPClassUID": theirs[5].class, "SOPInstanceUID": theirs[5].sop},
	}}, &commitment)
	eventually(t, soon, "Orthanc has its storage commitment result", func() bool {
		var result struct{ Status string }
		o.call(commitment.Path, nil, &result)
		return result.Status == "Success"
	})

	// It queries the node, and moves what it finds to itself: Orthanc as C-FIND
	// and C-MOVE SCU.
	n.cstore(ours)
	n.counts(len(theirs) + len(ours))
	var query struct{ ID string }
	o.call("/modalities/pelago/query", map[string]any{"Level": "Study", "Query": map[string]string{"PatientID": "W102*"}}, &query)
	var answers []string
	o.call("/queries/"+query.ID+"/answers", nil, &answers)
	if len(answers) != 3 {
		t.Fatalf("Orthanc finds %d studies, want 3", len(answers))
	}
	o.call("/queries/"+query.ID+"/retrieve", map[string]any{"TargetAet": "ORTHANC", "Synchronous": true}, nil)
	everything := append(append([]instance(nil), theirs...), ours...)
	o.holds("C-MOVE by Orthanc", everything)

	// The node is told by somebody else to move to Orthanc what it has already.
	if failed := n.cmove("ORTHANC", ours); len(failed) > 0 {
		t.Errorf("C-MOVE to Orthanc: %v failed", failed)
	}
	o.holds("C-MOVE to Orthanc", everything)

	// Our client queries Orthanc and has it move to the node.
	client, err := scu.Dial(t.Context(), scu.Target{Addr: "127.0.0.1:" + o.port, Called: "ORTHANC", Calling: n.AE()}, scu.ProposeMove(dimse.StudyRoot))
	if err != nil {
		t.Fatal(err)
	}
	for p, err := range client.Move(t.Context(), n.AE(), scu.Query{Root: dimse.StudyRoot, Identifier: identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {theirs[0].study}})}) {
		if err != nil || p.Final && p.Completed != 4 {
			t.Errorf("C-MOVE from Orthanc: %+v %v", p, err)
		}
	}
	if err := client.Release(t.Context()); err != nil {
		t.Error(err)
	}
	n.counts(len(everything))
	n.verifyClean()
}
