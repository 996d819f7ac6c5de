package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Process is a server that was started.
type Process struct {
	Name string

	cmd    *exec.Cmd
	log    string
	exited chan struct{} // closed when it has ended
	err    error         // valid then
	ending atomic.Bool
}

// stopTime is how long a process may take to end by itself.
const stopTime = 60 * time.Second

// launch starts a program. Its output goes to a file beside dir.
func launch(name, dir string, env []string, path string, args ...string) (*Process, error) {
	log := filepath.Join(filepath.Dir(dir), filepath.Base(dir)+".log")
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the child has its own
	p := &Process{Name: name, cmd: exec.Command(path, args...), log: log, exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = attributes()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// Stop ends the process in order and waits for it.
func (p *Process) Stop() error {
	p.ending.Store(true)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopTime):
		p.Kill()
		return fmt.Errorf("%s did not end within %v", p.Name, stopTime)
	}
}

// Kill ends the process at once.
func (p *Process) Kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended
	<-p.exited
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// await polls until ready, or the process has ended.
func (p *Process) await(ctx context.Context, limit time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		last := ready(ctx)
		if last == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended at its start: %w: %s", p.Name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v: %w: %s", p.Name, limit, last, p.tail())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Log returns what the process has written to its outputs.
func (p *Process) Log() ([]byte, error) { return os.ReadFile(p.log) }

// tail returns the end of the log.
func (p *Process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-1000):]))
}

// Memory returns the resident memory now and at its peak, in bytes.
func (p *Process) Memory() (resident, peak int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, 0, err
	}
	kilobytes := func(key string) int64 {
		_, after, _ := strings.Cut(string(b), "\n"+key+":")
		line, _, _ := strings.Cut(after, "\n")
		n, parseErr := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
		if parseErr != nil {
			err = fmt.Errorf("/proc: %s: %w", key, parseErr)
		}
		return n << 10
	}
	resident, peak = kilobytes("VmRSS"), kilobytes("VmHWM")
	return resident, peak, err
}

// ResetPeak makes the peak of [Process.Memory] start anew.
func (p *Process) ResetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.PID()), []byte("5"), 0)
}

// Written returns the bytes that the process has caused to be written to disk
// (write_bytes less what was given up before it was written).
func (p *Process) Written() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", p.PID()))
	if err != nil {
		return 0, err
	}
	var written, canceled int64
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(value, 10, 64)
		switch key {
		case "write_bytes":
			written = n
		case "cancelled_write_bytes":
			canceled = n
		}
	}
	return written - canceled, nil
}

// accepts tells whether a port is listened on.
func accepts(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// answers tells whether a URL answers 200.
func answers(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close() //nolint:errcheck // only the status counts
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	}
}
