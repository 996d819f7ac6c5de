package proc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pelago/cluster/fault"
	"pelago/node/datadir"
)

// Time limits of a node unless its options say otherwise.
const (
	defaultReady = 2 * time.Minute // for replay of what a killed node left, on a slow machine
	poll         = 10 * time.Millisecond
	maxLog       = 1 << 20 // of the log's end that Log returns
)

// Options say how to run a node.
type Options struct {
	Binary string // of pelago
	Dir    string // for the log and, unless Data says otherwise, the data directory
	Data   string
	Site   string // "": local
	Peer   string // address of its port for other nodes; "": any of the loopback
	// Config is TOML, as `pelago config print` writes it; "": none.
	Config string
	// Args are further arguments of `pelago serve`, after ours.
	Args []string
	// Env is added to an environment without PELAGO_ variables.
	Env   []string
	Ready time.Duration // how long it may take to be ready; 0: 2 min
}

// Node is a `pelago serve` process, and what is known of it.
type Node struct {
	o     Options
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
	err   error         // how; read it after ended
	at    datadir.Node
}

// Start runs a node and waits until it is ready. A node that ends by itself
// before is an *[Ended] in the error's tree.
func Start(ctx context.Context, o Options) (*Node, error) {
	if o.Data == "" {
		o.Data = filepath.Join(o.Dir, "data")
	}
	if o.Ready == 0 {
		o.Ready = defaultReady
	}
	n := &Node{o: o}
	return n, n.Restart(ctx)
}

// Change changes the options of a node that does not run, for its next start.
func (n *Node) Change(f func(*Options)) { f(&n.o) }

// Ended is the error of a node that ended by itself.
type Ended struct {
	Code int    // its exit code; -1 after a signal
	Log  string // the end of what it said
}

func (e *Ended) Error() string {
	return fmt.Sprintf("the node ended with code %d:\n%s", e.Code, e.Log)
}

// Restart starts a node that was stopped, killed or has ended, on the same data
// directory, and waits until it is ready. Its addresses may be others.
func (n *Node) Restart(ctx context.Context) error {
	if n.Running() {
		return fault.New(fault.Conflict, "the node runs already")
	}
	if err := n.launch(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.o.Ready)
	defer cancel()
	if err := n.untilReady(ctx); err != nil {
		return errors.Join(err, n.Kill())
	}
	return nil
}

// launch starts the process.
func (n *Node) launch() error {
	peer := n.o.Peer
	if peer == "" {
		peer = "127.0.0.1:0"
	}
	args := []string{"serve", "--data", n.o.Data, "--dicom", "127.0.0.1:0", "--http", "127.0.0.1:0", "--peer", peer}
	if n.o.Site != "" {
		args = append(args, "--site", n.o.Site)
	}
	if n.o.Config != "" {
		name := filepath.Join(n.o.Dir, "pelago.toml")
		if err := os.WriteFile(name, []byte(n.o.Config), 0o600); err != nil {
			return err
		}
		args = append(args, "--config", name)
	}
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	cmd := exec.Command(n.o.Binary, append(args, n.o.Args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = n.environ()
	// A group of its own: what interrupts the test is not for the node.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	n.cmd, n.ended, n.at = cmd, ended, datadir.Node{}
	go func() {
		n.err = cmd.Wait()
		close(ended)
	}()
	return nil
}

// environ keeps settings of this machine out of the node.
func (n *Node) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "PELAGO_") })
	return append(env, n.o.Env...)
}

// untilReady waits until the node has announced itself and says that it is
// ready.
func (n *Node) untilReady(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		// A killed node leaves its announcement behind: the process tells them apart.
		at, err := datadir.Find(n.o.Data)
		if err == nil && at.PID == n.cmd.Process.Pid {
			n.at = at
			return n.ready(ctx)
		}
		select {
		case <-tick.C:
		case <-n.ended:
			return &Ended{Code: n.cmd.ProcessState.ExitCode(), Log: n.Log()}
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the node did not come up: %w\n%s", ctx.Err(), n.Log())
		}
	}
}

// ready asks the node whether it is ready. A node without a web face is ready
// once it has announced itself.
func (n *Node) ready(ctx context.Context) error {
	if n.at.HTTP == "" || strings.HasPrefix(n.at.HTTP, "https") {
		return nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, n.at.HTTP+"/readyz", nil)
	if err != nil {
		return err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fault.New(fault.Unavailable, "readyz: %w", err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	if answer.StatusCode != http.StatusOK {
		return fault.New(fault.Unavailable, "readyz: %s", answer.Status)
	}
	return nil
}

// Running reports whether the process is there.
func (n *Node) Running() bool {
	if n.cmd == nil {
		return false
	}
	select {
	case <-n.ended:
		return false
	default:
		return true
	}
}

// Done is closed when the process has ended.
func (n *Node) Done() <-chan struct{} { return n.ended }

// Stop asks the node to end (SIGTERM) and waits. nil means that it ended with
// code 0; a node that has not ended when ctx does is killed.
func (n *Node) Stop(ctx context.Context) error {
	if !n.Running() {
		return nil
	}
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-n.ended:
	case <-ctx.Done():
		return errors.Join(fault.New(fault.Unavailable, "the node did not end: %w\n%s", ctx.Err(), n.Log()), n.Kill())
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		return &Ended{Code: code, Log: n.Log()}
	}
	return nil
}

// Kill ends the process without warning and waits for it.
func (n *Node) Kill() error {
	if !n.Running() {
		return nil
	}
	err := n.cmd.Process.Kill()
	<-n.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Pause stops the process where it is (SIGSTOP), without its connections' other
// ends hearing of it, until [Node.Resume].
func (n *Node) Pause() error { return n.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on (SIGCONT).
func (n *Node) Resume() error { return n.cmd.Process.Signal(syscall.SIGCONT) }

// HTTP is the base URL of the node's web face.
func (n *Node) HTTP() string { return n.at.HTTP }

// DICOM is the address of its DICOM port.
func (n *Node) DICOM() string { return n.at.DICOM }

// Peer is where other nodes reach it.
func (n *Node) Peer() string { return n.at.Peer }

// AE is its application entity title.
func (n *Node) AE() string { return n.at.AE }

// Token lets whoever has it administer the node.
func (n *Node) Token() string { return n.at.Token }

// Data is its data directory.
func (n *Node) Data() string { return n.o.Data }

// PID is the process's id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

func (n *Node) logFile() string { return filepath.Join(n.o.Dir, "node.log") }

// Log returns the end of what the node's runs have said so far.
func (n *Node) Log() string {
	f, err := os.Open(n.logFile())
	if err != nil {
		return err.Error()
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err := f.Stat(); err == nil && info.Size() > maxLog {
		if _, err := f.Seek(-maxLog, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Resident returns the bytes of memory that the process holds (VmRSS), and the
// most it has held so far (VmHWM).
func (n *Node) Resident() (now, most int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "VmRSS" {
			now = kib << 10
		} else {
			most = kib << 10
		}
	}
	return now, most, nil
}
