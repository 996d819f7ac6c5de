package assoc

import (
	"net"
	"syscall"
)

// tune turns Nagle's algorithm off and returns a function that has the kernel
// acknowledge at once what it has received; nil where that is not possible.
//
// Many modalities leave Nagle's algorithm on and write a PDU in two pieces:
// their second piece waits until the first is acknowledged, which a kernel that
// delays acknowledgements does 40 ms later. TCP_QUICKACK does not last (tcp(7)),
// so that the function is called before every read of a rest; it also sends the
// acknowledgement that the kernel has put off.
func tune(conn net.Conn) func() {
	for {
		if tcp, ok := conn.(interface{ SetNoDelay(bool) error }); ok {
			// Go sets it by default; a socket handed over by another program may not have it.
			_ = tcp.SetNoDelay(true)
		}
		if raw, ok := conn.(syscall.Conn); ok {
			rc, err := raw.SyscallConn()
			if err != nil {
				return nil
			}
			return quickAck(rc)
		}
		under, ok := conn.(interface{ NetConn() net.Conn }) // *tls.Conn, and wrappers in its manner
		if !ok {
			return nil
		}
		conn = under.NetConn()
	}
}
