package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/dimse/dimsetest"
	"pelago/node/admin"
	"pelago/node/audit"
	"pelago/node/config"
	"pelago/node/datadir"
	"pelago/replication/catalog"
)

// started is a node in this process, with what is left of the defaults.
func started(t *testing.T, change func(*config.Config)) *node {
	t.Helper()
	c := config.Default()
	c.Data = filepath.Join(t.TempDir(), "data")
	c.DICOM.Listen, c.HTTP.Listen, c.Peer.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if change != nil {
		change(&c)
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	n, err := startNode(context.Background(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// end ends a node as SIGTERM does.
func (n *node) end(t *testing.T) {
	t.Helper()
	n.fatal(context.Canceled)
	if err := n.wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
}

func TestANodeStartsServesAndLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	n := started(t, nil)
	var s admin.Status
	r := pelago(t, nil, "status", "--json", "--data", n.config.Data)
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || r.code != 0 {
		t.Fatalf("status: %+v, %v", r, err)
	}
	if s.StalenessSeconds != 0 || s.Sites[0].Nodes[0].LagSeconds != 0 || s.ProtectedStudies != 0 || s.Refuses != "" {
		t.Errorf("a network of one is never stale, and protects nothing against its loss: %+v", s)
	}
	if said := n.meta(); said.Reads != catalog.EntryVersion {
		t.Errorf("a node tells others that it reads entries of version %d, and it does of %d", said.Reads, catalog.EntryVersion)
	}
	tasks := map[string]string{}
	for _, task := range s.Tasks {
		tasks[task.Name] = task.State
	}
	for _, name := range []string{"audit", "disk_watch", "journal", "pack", "purge", "reclaim", "storage_commitment"} {
		if tasks[name] != "running" {
			t.Errorf("task %s is %q", name, tasks[name])
		}
	}
	missing(t, "ARCHITECTURE.md", slices.Collect(maps.Keys(tasks)))
	if r := pelago(t, nil, "verify", "--data", n.config.Data); r.code != 0 || r.stderr != "" {
		t.Errorf("verify through the node: %+v", r)
	}
	http.DefaultClient.CloseIdleConnections()
	n.end(t)
	if _, err := datadir.Find(n.config.Data); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after the end: %v", err)
	}
	if r := pelago(t, nil, "verify", "--data", n.config.Data); r.code != 0 || !strings.Contains(r.stderr, "no node runs") {
		t.Errorf("verify without a node: %+v", r)
	}
	again := started(t, func(c *config.Config) { c.Data = n.config.Data })
	if again.id != n.id {
		t.Error("the node has another identity")
	}
	again.end(t)
}

func TestAStartThatFailsLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	first := started(t, nil)
	defer first.end(t)
	for name, change := range map[string]func(*config.Config){
		"the same directory":         func(c *config.Config) { c.Data = first.config.Data },
		"a DICOM port that is taken": func(c *config.Config) { c.DICOM.Listen = first.dicomAddr },
		"a web port that is taken":   func(c *config.Config) { c.HTTP.Listen = strings.TrimPrefix(first.baseURL, "http://") },
		"a hash that is none":        func(c *config.Config) { c.HTTP.Users = map[string]string{"ann": "secret"} },
		"no certificate":             func(c *config.Config) { c.HTTP.Certificate, c.HTTP.Key = "/nothing", "/nothing" },
	} {
		c := config.Default()
		c.Data = filepath.Join(t.TempDir(), "data")
		c.DICOM.Listen, c.HTTP.Listen, c.Peer.Listen = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		change(&c)
		if _, err := startNode(context.Background(), c, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: it starts", name)
		}
		if name == "the same directory" {
			if _, err := datadir.Find(c.Data); err != nil {
				t.Errorf("%s: the running node is not found any more: %v", name, err)
			}
			continue
		}
		c.DICOM.Listen, c.HTTP = "127.0.0.1:0", config.HTTP{Listen: "127.0.0.1:0"}
		n, err := startNode(context.Background(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Errorf("%s: the next start: %v", name, err)
			continue
		}
		n.end(t)
	}
}

func TestCommandsReachANodeOverTLSByItsCertificate(t *testing.T) {
	certificate, key := dimsetest.NewAuthority(t).IssueFiles(t, t.TempDir(), "web", "pacs.example")
	hash, err := admin.HashPassword("secret")
	if err != nil {
		t.Fatal(err)
	}
	n := started(t, func(c *config.Config) {
		c.HTTP.Certificate, c.HTTP.Key = certificate, key
		c.HTTP.Users = map[string]string{"ann": hash}
	})
	defer n.end(t)
	if r := pelago(t, nil, "status", "--data", n.config.Data); r.code != 0 {
		t.Errorf("by the data directory: %+v", r)
	}
	if r := pelago(t, []string{"PELAGO_PASSWORD=ann:secret"}, "status", "--http", n.baseURL); r.code == 0 {
		t.Error("a certificate for another name is taken from an address")
	}
	found, err := datadir.Find(n.config.Data)
	if err != nil {
		t.Fatal(err)
	}
	for pin, ok := range map[string]bool{found.Certificate: true, strings.Repeat("0", 64): false} {
		c := &client{base: n.baseURL, http: pinned(pin), authorize: func(r *http.Request) { r.SetBasicAuth("ann", "secret") }}
		if err := c.get(t.Context(), "/api/status", &admin.Status{}); (err == nil) != ok {
			t.Errorf("pinned to %.8s: %v", pin, err)
		}
		c.authorize = func(*http.Request) {}
		if err := c.get(t.Context(), "/dicom-web/studies", nil); ok && !fault.Is(err, fault.Denied) {
			t.Errorf("without a login: %v", err)
		}
	}
}

func TestUsersMustLogInAlthoughTheWebFaceIsInsecure(t *testing.T) {
	hash, err := admin.HashPassword("secret")
	if err != nil {
		t.Fatal(err)
	}
	n := started(t, func(c *config.Config) {
		c.HTTP.Insecure = true
		c.HTTP.Users = map[string]string{"ann": hash}
	})
	defer n.end(t)
	c := &client{base: n.baseURL, http: http.DefaultClient, authorize: func(*http.Request) {}}
	if err := c.get(t.Context(), "/dicom-web/studies", nil); !fault.Is(err, fault.Denied) {
		t.Errorf("anonymous: %v", err)
	}
	c.authorize = func(r *http.Request) { r.SetBasicAuth("ann", "secret") }
	if err := c.get(t.Context(), "/dicom-web/studies", nil); err != nil {
		t.Errorf("logged in: %v", err)
	}
}

func TestAnInsecureWebFaceIsReachedUnderAnyName(t *testing.T) {
	for listen, want := range map[string]bool{"0.0.0.0:0": true, "127.0.0.1:0": false} {
		n := started(t, func(c *config.Config) { c.HTTP.Listen, c.HTTP.Insecure = listen, true })
		_, port, _ := strings.Cut(strings.TrimPrefix(n.baseURL, "http://"), "]:")
		if port == "" {
			_, port, _ = strings.Cut(strings.TrimPrefix(n.baseURL, "http://"), ":")
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/dicom-web/studies", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "pacs.hospital.example:8080"
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if (answer.StatusCode == http.StatusOK) != want {
			t.Errorf("on %s: %d", listen, answer.StatusCode)
		}
		n.end(t)
	}
}

func TestANodeThatCannotWriteEndsAtOnceWithItsOwnCode(t *testing.T) {
	n := started(t, nil)
	n.died.Store(true)
	n.fatal(fault.New(fault.Unavailable, "staging: a write or fsync failed"))
	err := n.wait()
	var exit *exitError
	if !errors.As(err, &exit) || exit.code != exitDied {
		t.Errorf("%v", err)
	}
	if err := n.stop(); err != nil { // the process would be gone
		t.Error(err)
	}
}

// eventsOf reads a node's audit trail.
func eventsOf(t *testing.T, n *node) (all []audit.Event) {
	t.Helper()
	if err := n.trail.events.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.trail.events.Read(t.Context(), 1, func(e audit.Entry) error {
		all = append(all, e.Event)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestTheAuditTrailNamesWhatWasDoneAndRefused(t *testing.T) {
	n := started(t, nil)
	defer n.end(t)
	if r := pelago(t, nil, "delete", "1.2.3", "--data", n.config.Data); r.code != 1 {
		t.Errorf("deleting what is not there: %+v", r)
	}
	if r := pelago(t, nil, "ae", "add", "CT1", "10.0.0.1", "--data", n.config.Data); r.code != 0 {
		t.Errorf("registering: %+v", r)
	}
	if r := pelago(t, []string{"PELAGO_PASSWORD=guess"}, "ae", "remove", "CT1", "--http", n.baseURL); r.code != 1 {
		t.Errorf("with a wrong token: %+v", r)
	}
	dir := t.TempDir()
	one := dimsetest.CT(7, 0)
	if err := os.WriteFile(filepath.Join(dir, "one.dcm"), one.File(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "two.dcm"), one.File()[:1000], 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", dir)
	if r := pelago(t, nil, "import", "--data", n.config.Data, filepath.Join(dir, "one.dcm"), filepath.Join(dir, "two.dcm")); r.code != 1 {
		t.Errorf("storing one and a half: %+v", r)
	}
	text := func(e audit.Event) string {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for what, wanted := range map[string][]string{
		"the start":          {"Application Activity", "Application Start"},
		"what was stored":    {"Instances Transferred", one.StudyInstanceUID, one.PatientID, one.SOPClassUID, `"outcome":0`, `"address":"127.0.0.1"`},
		"what was refused":   {"Instances Transferred", `"outcome":4`, `"address":"127.0.0.1"`},
		"the deletion":       {"Study Deleted", "1.2.3", "no such study"},
		"the registration":   {"CT1", "ae-put"},
		"the wrong password": {"User Authentication", "ae-delete", "wrong token"},
	} {
		found := false
		for _, e := range eventsOf(t, n) {
			s, all := text(e), true
			for _, w := range wanted {
				all = all && strings.Contains(s, w)
			}
			found = found || all
		}
		if !found {
			t.Errorf("%s is not in the trail", what)
			for _, e := range eventsOf(t, n) {
				t.Log(text(e))
			}
		}
	}
}
