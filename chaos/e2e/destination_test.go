package e2e

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
)

// destination is a DICOM application of this test that takes what it is sent.
type destination struct {
	port      string
	got       *arrivals
	committed chan *dimse.CommitmentResult
}

// listen starts a destination on the loopback.
func listen(t testing.TB) *destination {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l)
}

func serve(t testing.TB, l net.Listener) *destination {
	t.Helper()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := &destination{port: port, got: &arrivals{}, committed: make(chan *dimse.CommitmentResult, 16)}
	server := &scp.Server{Admit: d}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("destination: %v", err)
		}
	})
	return d
}

// Admit implements [scp.Admitter].
func (d *destination) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Store: d, Echo: d, Committed: func(_ context.Context, r *dimse.CommitmentResult) error {
		d.committed <- r
		return nil
	}}, nil
}

// Echo implements [scp.Echoer].
func (d *destination) Echo(context.Context) error { return nil }

// Store implements [scp.Storer].
func (d *destination) Store(_ context.Context, r *scp.StoreRequest) error {
	sum, err := hashOf(r.Data)
	if err == nil {
		d.got.add(r.Instance, arrival{r.Class, r.Syntax, sum})
	}
	return err
}

// process runs a program in the background until the test ends.
func process(t testing.TB, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(dimsetest.Tool(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with the children it forks
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("%s said:\n%s", name, tail(out.String(), 30))
		}
	})
}

// listening waits until something answers on a port.
func listening(t testing.TB, port string) {
	t.Helper()
	eventually(t, soon, "port "+port+" is listened on", func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

// storescp runs dcmtk's, which writes what it receives to a folder.
func storescp(t testing.TB, options ...string) (port, dir string) {
	t.Helper()
	port, dir = freePort(t), t.TempDir()
	process(t, "storescp", append(options, "-pm", "-od", dir, port)...)
	listening(t, port)
	return port, dir
}

// received reads the files that a storescp has written, by file name.
func received(t testing.TB, dir string) map[string]arrival {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]arrival{}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		meta, body, err := dicom.OpenFile(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sum, err := hashOf(body)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(name)] = arrival{meta.Class, meta.Syntax, sum}
	}
	return all
}
