package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"pelago/node/ae"
	"pelago/node/datadir"
)

// Pelago starts nodes from a binary.
type Pelago struct {
	Binary string
	// Env are further settings, PELAGO_X=y.
	Env []string
}

// readyTime is how long any server may take to start.
const readyTime = 5 * time.Minute

// Start implements [Starter]. The node is as it comes, but for its addresses.
func (p Pelago) Start(ctx context.Context, dir string) (*Server, error) {
	s := &Server{Dir: dir, AE: "PELAGO"}
	env := append([]string{"PELAGO_ADMIN_PROFILES=true", "PELAGO_LOG_LEVEL=warn"}, p.Env...)
	// It takes ports of its own choice, which nobody else can have taken, and says so.
	var err error
	s.Process, err = launch("pelago", dir, env, p.Binary, "serve",
		"--data", dir, "--dicom", "127.0.0.1:0", "--http", "127.0.0.1:0", "--peer", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyTime, s.announced); err != nil {
		s.Kill()
		return nil, err
	}
	s.Count = func(ctx context.Context) (int64, error) {
		var status struct {
			Instances int64 `json:"instances"`
			Pending   int64 `json:"pending_journal"`
		}
		for {
			if err := (Node{s}).call(ctx, http.MethodGet, "/api/status", nil, &status); err != nil || status.Pending == 0 {
				return status.Instances, err
			}
			select {
			case <-ctx.Done():
				return status.Instances, ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return s, nil
}

// Node is a server that is a node, for what only nodes can do.
type Node struct{ *Server }

// announced reports whether the node is ready, and takes its addresses. A node that
// was killed has left others behind.
func (s *Server) announced(ctx context.Context) error {
	at, err := datadir.Find(s.Dir)
	if err != nil {
		return err
	}
	if at.PID != s.PID() {
		return errors.New("it has not announced itself")
	}
	s.DICOM, s.Web = at.DICOM, at.HTTP+"/dicom-web"
	return answers(at.HTTP + "/readyz")(ctx)
}

func (n Node) base() string { return strings.TrimSuffix(n.Web, "/dicom-web") }

// call uses the node's API as its administrator.
func (n Node) call(ctx context.Context, method, path string, body, into any) error {
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, n.base()+path, sent)
	if err != nil {
		return err
	}
	at, err := datadir.Find(n.Dir)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+at.Token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %.200s", method, path, answer.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

// Pack makes the node pack everything that it has received.
func (n Node) Pack(ctx context.Context) error {
	return n.call(ctx, http.MethodPost, "/api/pack", nil, nil)
}

// Register makes an AE known that listens on a port of loopback.
func (n Node) Register(ctx context.Context, title string, port int) error {
	return n.call(ctx, http.MethodPut, "/api/aes/"+title, ae.AE{
		Title: title, Hosts: []string{"127.0.0.1"}, Port: uint16(port), Rights: ae.AllRights,
	}, nil)
}

// Profile writes a CPU profile of the next seconds to a file.
func (n Node) Profile(ctx context.Context, took time.Duration, file string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet,
		fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", n.base(), max(1, int(took.Seconds()))), nil)
	if err != nil {
		return err
	}
	at, err := datadir.Find(n.Dir)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+at.Token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	if answer.StatusCode != http.StatusOK {
		return errors.New("profile: " + answer.Status)
	}
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

// Rest returns the bytes on disk: of staging, and of everything else.
func (n Node) Rest() (staging, rest int64, err error) {
	if staging, err = DiskUsage(filepath.Join(n.Dir, "staging")); err != nil {
		return 0, 0, err
	}
	all, err := DiskUsage(n.Dir)
	return staging, all - staging, err
}
