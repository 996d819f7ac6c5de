package dimsetest

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// toolTime is how long a program may take unless told otherwise: far more than
// any of them needs on loopback.
const toolTime = 60 * time.Second

// Need is for what a test cannot do without. If it is not there the test is
// skipped, loudly, and says what is missing; in CI it fails.
func Need(t testing.TB, there bool, missing string) {
	t.Helper()
	switch {
	case there:
	case os.Getenv("CI") != "":
		t.Fatalf("%s: CI must not skip", missing)
	default:
		t.Skipf("SKIPPED: %s", missing)
	}
}

// Tool returns the path of a program such as storescu or dcmdump, which the test
// needs.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	Need(t, err == nil, name+" is not installed")
	return path
}

// Run runs a program to its end and returns what it printed, errors included;
// a failure fails the test.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := TryRun(t, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

// TryRun runs a program and returns what it printed and how it failed.
func TryRun(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, Tool(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// StoreSCU sends files or folders with dcmtk's storescu to an address, with
// further options of its own.
func StoreSCU(t testing.TB, addr net.Addr, options []string, paths ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		t.Fatal(err)
	}
	args := append(append([]string{}, options...), "-aec", "PELAGO", host, port)
	return Run(t, "storescu", append(args, paths...)...)
}

// WriteFiles writes Part 10 files of the instances into a new folder of the
// test, and returns it.
func WriteFiles(t testing.TB, instances ...Instance) string {
	t.Helper()
	dir := t.TempDir()
	for _, i := range instances {
		if err := os.WriteFile(filepath.Join(dir, i.SOPInstanceUID+".dcm"), i.File(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
