package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"pelago/chaos/proc"
)

// helperWord is the first argument of this program when it is to be a peer.
const helperWord = "peer-helper"

// helper starts this program as a peer.
func helper(name, dir string, args ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return launch(name, dir, nil, self, append([]string{helperWord}, args...)...)
}

// Helper must be called first by the main function of the program that starts
// peers: when its arguments say so, it is a peer until it is ended. It reports
// whether it was.
func Helper(args []string) (bool, error) {
	if len(args) != 5 || args[1] != helperWord {
		return false, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch kind, address, path := args[2], args[3], args[4]; kind {
	case "bucket":
		return true, ServeBucket(ctx, address, path)
	case "files":
		return true, serveFiles(ctx, address, path)
	default:
		return true, fmt.Errorf("no helper %q", kind)
	}
}

// Files serves a folder's files with net/http in a process of its own.
type Files struct{ Folder string }

// Start implements [Starter]; dir is for the log only.
func (f Files) Start(ctx context.Context, dir string) (*Server, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	s := &Server{Dir: dir, Web: "http://" + address}
	if s.Process, err = helper("net/http", dir, "files", address, f.Folder); err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyTime, accepts(address)); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

func serveFiles(ctx context.Context, address, folder string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(folder)), ReadHeaderTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { server.Close() }) //nolint:errcheck // it ends either way
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
