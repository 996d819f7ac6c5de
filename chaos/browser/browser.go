package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"pelago/cluster/fault"
)

// programs are the names under which systems know the browser.
var programs = [...]string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

// maxMessage bounds one message of the browser, in bytes: a screenshot is the
// largest.
const maxMessage = 64 << 20

// Find returns the path of a browser: fault.NotFound if there is none.
func Find() (string, error) {
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fault.New(fault.NotFound, "none of %v is installed", programs)
}

// Browser is a running browser.
type Browser struct {
	cmd     *exec.Cmd
	to      *os.File
	from    *os.File
	profile string
	read    chan struct{} // closed when the reading goroutine has ended

	mu      sync.Mutex // guards what is below, and writing
	last    int64
	waiting map[int64]chan answer
	events  map[string]func(method string, params json.RawMessage) // by session
	broken  error
}

// answer is the browser's to one call.
type answer struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// message is anything that the browser says.
type message struct {
	answer
	ID      int64           `json:"id"`
	Session string          `json:"sessionId"`
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params"`
}

// Start runs a browser.
func Start(program string) (*Browser, error) {
	profile, err := os.MkdirTemp("", "pelago-browser-")
	if err != nil {
		return nil, err
	}
	b := &Browser{profile: profile, read: make(chan struct{}), waiting: map[int64]chan answer{}, events: map[string]func(string, json.RawMessage){}}
	if err := b.launch(program); err != nil {
		return nil, errors.Join(err, os.RemoveAll(profile))
	}
	go b.listen()
	return b, nil
}

func (b *Browser) launch(program string) error {
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		return err
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		return err
	}
	args := []string{
		"--headless=new", "--remote-debugging-pipe", "--user-data-dir=" + b.profile, "--no-first-run", "--no-default-browser-check",
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--metrics-recording-only", "--mute-audio", "--hide-scrollbars", "--lang=en",
	}
	if os.Geteuid() == 0 { // the sandbox refuses the root of a container
		args = append(args, "--no-sandbox")
	}
	b.cmd = exec.Command(program, append(args, "about:blank")...)
	b.cmd.ExtraFiles = []*os.File{theirIn, theirOut} // file descriptors 3 and 4
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	b.to, b.from = ourOut, ourIn
	err = b.cmd.Start()
	theirIn.Close()
	theirOut.Close()
	if err != nil {
		ourOut.Close()
		ourIn.Close()
	}
	return err
}

// Close ends the browser and its processes, and removes the profile.
func (b *Browser) Close() error {
	err := syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
	_ = b.cmd.Wait() // it was killed
	b.to.Close()
	b.from.Close()
	<-b.read
	return errors.Join(err, os.RemoveAll(b.profile))
}

// listen reads what the browser says until it ends: messages end with a zero byte.
func (b *Browser) listen() {
	defer close(b.read)
	in := bufio.NewScanner(b.from)
	in.Buffer(make([]byte, 64<<10), maxMessage)
	in.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		for i, c := range data {
			if c == 0 {
				return i + 1, data[:i], nil
			}
		}
		return 0, nil, nil
	})
	for in.Scan() {
		var m message
		if json.Unmarshal(in.Bytes(), &m) == nil {
			b.take(m)
		}
	}
	err := in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = fault.New(fault.Unavailable, "the browser has ended: %w", err)
	for _, w := range b.waiting {
		close(w)
	}
	clear(b.waiting)
}

// take gives a message to whoever waits for it.
func (b *Browser) take(m message) {
	b.mu.Lock()
	waiting, event := b.waiting[m.ID], b.events[m.Session]
	delete(b.waiting, m.ID)
	b.mu.Unlock()
	switch {
	case m.ID != 0 && waiting != nil:
		waiting <- m.answer
	case m.Method != "" && event != nil:
		event(m.Method, m.Params)
	}
}

// call asks the browser, or a page's session of it.
func (b *Browser) call(ctx context.Context, session, method string, params, into any) error {
	wait, err := b.send(session, method, params)
	if err != nil {
		return err
	}
	select {
	case a, ok := <-wait:
		switch {
		case !ok:
			return b.failure()
		case a.Error != nil:
			return fault.New(fault.Invalid, "%s: %s", method, a.Error.Message)
		case into == nil:
			return nil
		}
		return json.Unmarshal(a.Result, into)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

func (b *Browser) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

func (b *Browser) send(session, method string, params any) (<-chan answer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken != nil {
		return nil, b.broken
	}
	b.last++
	question := map[string]any{"id": b.last, "method": method}
	if params != nil {
		question["params"] = params
	}
	if session != "" {
		question["sessionId"] = session
	}
	text, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	wait := make(chan answer, 1)
	b.waiting[b.last] = wait
	_, err = b.to.Write(append(text, 0))
	return wait, err
}
