package group

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"

	"pelago/cluster/fault"
	"pelago/cluster/port"
)

// deaf is a port that nobody connects to.
type deaf struct{}

func (deaf) Listen(port.Service) (net.Listener, error) { return silence{make(chan struct{})}, nil }
func (deaf) Dial(context.Context, string, string, port.Service) (*tls.Conn, error) {
	return nil, fault.New(fault.Unavailable, "nobody is there")
}

// silence is a listener that accepts nobody.
type silence struct{ ended chan struct{} }

func (s silence) Accept() (net.Conn, error) {
	<-s.ended
	return nil, net.ErrClosed
}

func (s silence) Close() error {
	close(s.ended)
	return nil
}

func (silence) Addr() net.Addr { return nodeAddr("here") }

// The library takes the end of what it accepts from for a failure, and logs an
// error, unless it knows by then that it ends. So it is what ends it.
func TestTheLibraryEndsWhatItAcceptsFrom(t *testing.T) {
	var said bytes.Buffer // a slog.Handler writes one line at a time
	c, err := listenRaft(&Options{ID: "n", Address: "here", Port: deaf{}}, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
		t.Error("it has ended before it was closed")
	default:
	}
	if err := c.NetworkTransport.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
	default:
		t.Error("it has not ended with the library's transport")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if said.Len() > 0 {
		t.Errorf("it said\n%s", said.String())
	}
}
