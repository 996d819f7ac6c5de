package scp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// orthanc is a running Orthanc.
type orthanc struct {
	t          *testing.T
	dicom, url string
}

// startOrthanc runs Orthanc in an empty folder, with one modality: PELAGO at port.
func startOrthanc(t *testing.T, port string) orthanc {
	t.Helper()
	path := dimsetest.Tool(t, "Orthanc")
	dir := t.TempDir()
	o := orthanc{t: t}
	web := freePort(t)
	own := freePort(t)
	o.dicom, o.url = net.JoinHostPort("127.0.0.1", own), "http://127.0.0.1:"+web
	var p, w, d int
	for text, n := range map[string]*int{port: &p, web: &w, own: &d} {
		if _, err := fmt.Sscan(text, n); err != nil {
			t.Fatal(err)
		}
	}
	config, err := json.Marshal(map[string]any{
		"StorageDirectory": dir, "IndexDirectory": dir, "HttpPort": w, "DicomPort": d, "DicomAet": "ORTHANC",
		"RemoteAccessAllowed": false, "AuthenticationEnabled": false, "Plugins": []string{},
		"DicomAlwaysAllowStore": true, "DicomAlwaysAllowEcho": true, "DicomAlwaysAllowFind": true, "DicomAlwaysAllowGet": true, "DicomAlwaysAllowMove": true,
		"DicomModalities": map[string]any{"pelago": map[string]any{
			"AET": "PELAGO", "Host": "127.0.0.1", "Port": p, "AllowStorageCommitment": true,
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
	var log bytes.Buffer
	cmd := exec.Command(path, file)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Logf("Orthanc said:\n%.6000s", log.String())
		}
	})
	o.until("Orthanc answers", func() bool {
		response, err := http.Get(o.url + "/system")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return o
}

// until waits until something outside this process is so.
func (o orthanc) until(what string, so func() bool) {
	o.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for range 400 {
		if so() {
			return
		}
		<-tick.C
	}
	o.t.Fatalf("waited in vain until %s", what)
}

// post sends JSON, and returns the answer.
func (o orthanc) post(path string, body any) map[string]any {
	o.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		o.t.Fatal(err)
	}
	response, err := http.Post(o.url+path, "application/json", bytes.NewReader(b))
	if err != nil {
		o.t.Fatal(err)
	}
	return o.answer(path, response)
}

func (o orthanc) get(path string) map[string]any {
	o.t.Helper()
	response, err := http.Get(o.url + path)
	if err != nil {
		o.t.Fatal(err)
	}
	return o.answer(path, response)
}

func (o orthanc) answer(path string, response *http.Response) map[string]any {
	o.t.Helper()
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		o.t.Fatalf("%s: %s %v\n%s", path, response.Status, err, b)
	}
	var answer map[string]any
	if err := json.Unmarshal(b, &answer); err != nil {
		o.t.Fatalf("%s: %v", path, err)
	}
	return answer
}

func TestInteropOrthanc(t *testing.T) {
	m := &archive{matches: 3}
	results := make(chan *dimse.CommitmentResult, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	o := startOrthanc(t, port)
	target := scu.Target{Addr: o.dicom, Called: "ORTHANC", Calling: "PELAGO"}
	// Orthanc waits for its results on an association of their own.
	report := make(chan *CommitRequest, 1)
	m.provider.commit = func(_ context.Context, r *CommitRequest) error { report <- r; return nil }
	server := &Server{Admit: admitFunc(func(ctx context.Context, r *assoc.Request) (*Session, error) {
		s, err := m.Admit(ctx, r)
		s.Committed = func(_ context.Context, r *dimse.CommitmentResult) error { results <- r; return nil }
		return s, err
	})}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, listener) }()
	t.Cleanup(func() { cancel(); <-served })

	in := synthetic(1)[0]
	file := sendable(in)
	t.Run("stores what we send and is queried", func(t *testing.T) {
		sender := scu.NewSender(target, []scu.Kind{{Class: in.SOPClassUID, Syntax: in.Syntax}}, 0)
		if status, err := sender.Store(t.Context(), file, scu.Originator{}); err != nil || status != 0 {
			t.Fatalf("store: %v %v", status, err)
		}
		if err := sender.Close(t.Context()); err != nil {
			t.Error(err)
		}
		c, err := scu.Dial(t.Context(), target, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		d := dicom.NewDataset()
		d.Set(tagStudyUID, dict.UI)
		n := 0
		for d, err := range c.Find(t.Context(), scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}) {
			if err != nil || d.String(tagStudyUID) != in.StudyInstanceUID {
				t.Errorf("found %v", err)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d studies", n)
		}
		release(t, c)
	})
	t.Run("is moved from", func(t *testing.T) {
		c, err := scu.Dial(t.Context(), target, scu.ProposeMove(dimse.StudyRoot))
		if err != nil {
			t.Fatal(err)
		}
		d := dicom.NewDataset()
		d.Set(tagStudyUID, dict.UI, in.StudyInstanceUID)
		final, err := last(c.Move(t.Context(), "PELAGO", scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}))
		if err != nil || final.Status != 0 || len(m.taken()) != 1 {
			t.Errorf("final %+v %v; %d arrived", final, err, len(m.taken()))
		}
		release(t, c)
	})
	t.Run("reports a commitment on a new association", func(t *testing.T) {
		c, err := scu.Dial(t.Context(), target, scu.ProposeCommitment())
		if err != nil {
			t.Fatal(err)
		}
		asked := &dimse.CommitmentRequest{Transaction: "1.2.3.4", References: []dimse.Reference{
			{Class: in.SOPClassUID, Instance: in.SOPInstanceUID}, {Class: in.SOPClassUID, Instance: "1.2.3"},
		}}
		if err := c.RequestCommitment(t.Context(), asked); err != nil {
			t.Fatal(err)
		}
		release(t, c)
		got := <-results
		if got.Transaction != "1.2.3.4" || len(got.Committed) != 1 || len(got.Failed) != 1 || got.Failed[0].Reason != 0x0112 {
			t.Errorf("result %+v", got)
		}
	})
	t.Run("asks for a commitment and takes the result", func(t *testing.T) {
		answer := o.post("/modalities/pelago/storage-commitment", map[string]any{
			"DicomInstances": []map[string]string{{"SOPClassUID": in.SOPClassUID, "SOPInstanceUID": in.SOPInstanceUID}},
		})
		r := <-report
		if len(r.References) != 1 || r.References[0].Instance != in.SOPInstanceUID {
			t.Errorf("asked for %+v", r.CommitmentRequest)
		}
		c, err := scu.Dial(t.Context(), target, scu.ProposeCommitmentResult())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SendCommitmentResult(t.Context(), &dimse.CommitmentResult{Transaction: r.Transaction, Committed: r.References}); err != nil {
			t.Fatal(err)
		}
		release(t, c)
		path, _ := answer["Path"].(string)
		if got := o.get(path); got["Status"] != "Success" {
			t.Errorf("%s: %v", path, got)
		}
	})
	t.Run("sends to us, queries us and moves from us", func(t *testing.T) {
		o.post("/modalities/pelago/store", map[string]any{"Resources": o.resources()})
		if n := len(m.taken()); n != 2 {
			t.Errorf("%d instances arrived", n)
		}
		found := o.post("/modalities/pelago/query", map[string]any{"Level": "Study", "Query": map[string]string{"PatientName": "*"}})
		id, _ := found["ID"].(string)
		m.destinations = map[string]string{"ORTHANC": o.dicom}
		o.post("/queries/"+id+"/answers/0/retrieve", map[string]any{"TargetAet": "ORTHANC", "Synchronous": true})
	})
}

// resources returns the ids of Orthanc's studies.
func (o orthanc) resources() []string {
	o.t.Helper()
	response, err := http.Get(o.url + "/studies")
	if err != nil {
		o.t.Fatal(err)
	}
	defer response.Body.Close()
	var ids []string
	if err := json.NewDecoder(response.Body).Decode(&ids); err != nil {
		o.t.Fatal(err)
	}
	return ids
}

// sendable returns a synthetic instance as one to send.
func sendable(in dimsetest.Instance) scu.Instance {
	kept := received{class: in.SOPClassUID, instance: in.SOPInstanceUID, syntax: in.Syntax, data: in.Dataset()}
	return scu.Instance{
		Class: kept.class, UID: kept.instance, Syntax: kept.syntax,
		Open: func(_ context.Context, syntax string) (io.ReadCloser, error) { return kept.open(syntax) },
	}
}
