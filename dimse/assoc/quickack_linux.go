package assoc

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// quickAck returns a function that sets TCP_QUICKACK.
func quickAck(rc syscall.RawConn) func() {
	set := func(fd uintptr) {
		// Not a TCP socket, or closed meanwhile: nothing to acknowledge.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
	}
	return func() { _ = rc.Control(set) }
}
