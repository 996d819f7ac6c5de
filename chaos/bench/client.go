package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// readBytes is what a client reads at a time. With the 8 KiB of io.Discard, a
// good part of a measured time would be the client's own system calls, whoever
// answers.
const readBytes = 256 << 10

// client is what asks web servers. Safe for concurrent use.
type client struct {
	http   http.Client
	pieces sync.Pool // of *[readBytes]byte, that answers are read into
}

// newClient returns a web client that keeps a connection for each of the
// parallel clients and asks nobody to compress: neither pixels nor the servers'
// compressors are what is compared.
func newClient() *client {
	return &client{
		http:   http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}},
		pieces: sync.Pool{New: func() any { return new([readBytes]byte) }},
	}
}

// newDistantClient returns a client that stands for another machine: it counts what
// it gets, and leaves the bytes of large answers in the kernel.
func newDistantClient() *client {
	c := newClient()
	c.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return discarding(conn), nil
	}
	return c
}

// close ends the connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// fetch reads an answer to its end; one shorter than least is an error.
func (c *client) fetch(ctx context.Context, url, accept string, least int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", accept)
	answer, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	n, err := c.drain(answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || n < least) {
		err = fmt.Errorf("%s: %s, %d bytes", url, answer.Status, n)
	}
	return err
}

// drain reads to the end and returns how much there was.
func (c *client) drain(body io.Reader) (int64, error) {
	piece := c.pieces.Get().(*[readBytes]byte)
	defer c.pieces.Put(piece)
	// Only a Writer: io.Discard would read with a buffer of its own.
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, body, piece[:])
}
