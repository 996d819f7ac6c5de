package main

import (
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// discarded is a connection of a client that stands for another machine: its large
// reads count what has come, but leave it in the kernel (MSG_TRUNC of tcp(7)), so
// that the copying which that machine would do does not take the cores of those
// that are measured.
type discarded struct{ *net.TCPConn }

// discarding makes a connection a discarded one.
func discarding(c net.Conn) net.Conn {
	if tcp, ok := c.(*net.TCPConn); ok {
		return discarded{tcp}
	}
	return c
}

// Read reads; of a p as large as those of [client.drain] it changes nothing.
func (d discarded) Read(p []byte) (n int, err error) {
	if len(p) < readBytes/2 {
		return d.TCPConn.Read(p)
	}
	raw, err := d.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, failed = unix.Recvfrom(int(fd), p, unix.MSG_TRUNC)
			if failed != unix.EINTR { //nolint:errorlint // of a system call
				return failed != unix.EAGAIN //nolint:errorlint // of a system call
			}
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
