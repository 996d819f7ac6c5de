//go:build !linux

package peer

import (
	"errors"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return nil }

// CPU is the processor time of a process; known on Linux only:
// errors.ErrUnsupported elsewhere.
func CPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
