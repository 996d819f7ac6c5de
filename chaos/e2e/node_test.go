package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/dimse/scu"
	"pelago/node/admin"
	"pelago/node/archive"
)

// stopTime bounds how long a node may take to end cleanly. It is for machines that are
// slow; that a node does not wait in vain for who is connected, its log says ([cutOff]).
const stopTime = 2 * time.Minute

// cutOff is what a node logs if it ended clients by force, at the end of the time that
// they get. Nothing is under way when most tests stop one.
const cutOff = "clients that did not end were cut off"

// node is a node of a test.
type node struct {
	*proc.Node
	t testing.TB
}

// start runs a node in a folder of the test.
func start(t testing.TB, change ...func(*proc.Options)) *node {
	t.Helper()
	dir := t.TempDir()
	o := proc.Options{Binary: pelagoBinary, Dir: dir, Env: []string{
		"XDG_CACHE_HOME=" + filepath.Join(dir, "cache"),
		"PELAGO_STORE_AHEAD=0", // or each of many nodes begins with writing half a gigabyte
	}}
	for _, f := range change {
		f(&o)
	}
	p, err := proc.Start(t.Context(), o)
	n := &node{Node: p, t: t}
	t.Cleanup(func() {
		if err := n.Kill(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
		if t.Failed() {
			t.Logf("the node said:\n%s", tail(n.Log(), 40))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tail returns the last lines of a text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// stop ends the node cleanly.
func (n *node) stop() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	before := strings.Count(n.Log(), cutOff)
	if err := n.Stop(ctx); err != nil {
		n.t.Fatal(err)
	}
	if strings.Count(n.Log(), cutOff) > before {
		n.t.Error("the node waited for clients until it cut them off")
	}
}

// kill ends the node without warning.
func (n *node) kill() {
	n.t.Helper()
	if err := n.Kill(); err != nil {
		n.t.Fatal(err)
	}
}

// restart starts an ended node again.
func (n *node) restart() {
	n.t.Helper()
	if err := n.Restart(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// target is the node as a DICOM client sees it.
func (n *node) target(calling string) scu.Target {
	return scu.Target{Addr: n.DICOM(), Called: n.AE(), Calling: calling}
}

// hostPort are the two arguments by which dcmtk's programs take the node.
func (n *node) hostPort() (host, port string) {
	n.t.Helper()
	host, port, err := net.SplitHostPort(n.DICOM())
	if err != nil {
		n.t.Fatal(err)
	}
	return host, port
}

// do sends an HTTP request with the node's token; the caller closes the body.
func (n *node) do(method, path string, body io.Reader, header http.Header) *http.Response {
	n.t.Helper()
	answer, err := n.try(method, path, body, header)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer
}

func (n *node) try(method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(n.t.Context(), method, n.HTTP()+path, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+n.Token())
	for name, values := range header {
		r.Header[name] = values
	}
	return http.DefaultClient.Do(r)
}

// call sends a request that must succeed, and reads a JSON answer if one is
// wanted.
func (n *node) call(method, path string, body, into any) {
	n.t.Helper()
	var sent io.Reader
	header := http.Header{"Accept": {"application/json, application/dicom+json"}}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			n.t.Fatal(err)
		}
		sent = bytes.NewReader(b)
		header.Set("Content-Type", "application/json")
	}
	answer := n.do(method, path, sent, header)
	b := readAll(n.t, answer)
	if answer.StatusCode/100 != 2 {
		n.t.Fatalf("%s %s: %s\n%s", method, path, answer.Status, b)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(b, into); err != nil {
		n.t.Fatalf("%s %s: %v\n%.2000s", method, path, err, b)
	}
}

// readAll reads an answer to its end.
func readAll(t testing.TB, answer *http.Response) []byte {
	t.Helper()
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatalf("%s: %v", answer.Request.URL, err)
	}
	return b
}

// pack brings everything that was stored so far to rest.
func (n *node) pack() {
	n.t.Helper()
	n.call(http.MethodPost, "/api/pack", nil, nil)
}

// status is what the node says of itself.
func (n *node) status() admin.Status {
	n.t.Helper()
	var s admin.Status
	n.call(http.MethodGet, "/api/status", nil, &s)
	return s
}

// counts waits until the catalogue counts so many instances: facts follow a
// store within a second or so.
func (n *node) counts(instances int) {
	n.t.Helper()
	eventually(n.t, soon, fmt.Sprintf("%d instances are counted", instances), func() bool {
		return n.status().Instances == uint64(instances)
	})
	if s := n.status(); s.Quarantined != 0 {
		n.t.Errorf("%d instances are quarantined", s.Quarantined)
	}
}

// cli runs a command against the node and returns what it printed; another
// exit code than wanted fails the test.
func (n *node) cli(want int, args ...string) proc.Result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), soon)
	defer cancel()
	r, err := n.Command(ctx, args...)
	if err != nil {
		n.t.Fatalf("pelago %v: %v", args, err)
	}
	if r.Code != want {
		n.t.Fatalf("pelago %v: exit code %d, want %d\n%s%s", args, r.Code, want, r.Stdout, r.Stderr)
	}
	return r
}

// cliJSON runs a command that prints JSON.
func (n *node) cliJSON(want int, into any, args ...string) {
	n.t.Helper()
	r := n.cli(want, args...)
	if err := json.Unmarshal([]byte(r.Stdout), into); err != nil {
		n.t.Fatalf("pelago %v: %v\n%s", args, err, r.Stdout)
	}
}

// verify re-reads everything by `pelago verify` and returns the report.
func (n *node) verify(want int) archive.Report {
	n.t.Helper()
	var report archive.Report
	n.cliJSON(want, &report, "verify", "--json", "--data", n.Data())
	return report
}

// verifyClean is verify of a node that nothing is wrong with.
func (n *node) verifyClean() archive.Report {
	n.t.Helper()
	report := n.verify(0)
	if len(report.Findings) > 0 {
		n.t.Errorf("verify found %d things, such as %+v", len(report.Findings), report.Findings[0])
	}
	return report
}

// freePort returns a port of the loopback that nobody listens on now.
func freePort(t testing.TB) string {
	t.Helper()
	port, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(port)
}

// eventually waits until something outside this process is so.
func eventually(t testing.TB, limit time.Duration, what string, so func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited %v in vain until %s", limit, what)
		}
	}
}

// register puts an AE of this machine into the node's registry.
func (n *node) register(title, port string, more ...string) {
	n.t.Helper()
	n.cli(0, append([]string{"ae", "add", title, "127.0.0.1", "--port", port, "--data", n.Data()}, more...)...)
}

func sprint(v any) string { return fmt.Sprint(v) }
