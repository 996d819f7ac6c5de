package proc

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"

	"pelago/cluster/fault"
)

// Ports that are given out: below those that the kernel takes for connections
// and for listeners that leave the choice to it (ip_local_port_range of Linux;
// RFC 6335 section 6 has them higher still), so that none of them takes a port
// between its choice and its use.
const firstPort, lastPort = 12_000, 32_000

// FreePort returns a TCP port of the loopback that nobody listens on, for a
// process that must be told its port: others dial it before it is ready, or it
// cannot choose one itself.
func FreePort() (port int, err error) {
	const attempts = 100
	for range attempts {
		port = firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		switch {
		case err == nil:
			return port, l.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return 0, err
		}
	}
	return 0, fault.New(fault.Other, "proc: none of %d ports is free", attempts)
}
