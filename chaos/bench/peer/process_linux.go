package peer

import "syscall"

// attributes makes the kernel end a child whose parent has died.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
