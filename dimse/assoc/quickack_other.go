//go:build !linux

package assoc

import "syscall"

// quickAck returns nil: only Linux can be told to acknowledge at once.
func quickAck(syscall.RawConn) func() { return nil }
