package scu_test

import (
	"context"
	"net"
	"testing"

	"pelago/dimse/scp"
)

// serveTCP serves a storer until stop is called.
func serveTCP(t *testing.T, s *storer, listener net.Listener) (stop func()) {
	t.Helper()
	server := &scp.Server{Admit: s}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ctx, listener) // it ends with ctx
	}()
	return func() {
		cancel()
		<-done
	}
}
