//go:build !linux

package peer

import (
	"errors"
	"syscall"
	"time"
)

func attributes() *syscall.SysProcAttr { return nil }

// CPU is the processor time of the process; known on Linux only.
func (p *Process) CPU() (time.Duration, error) { return 0, errors.ErrUnsupported }

// CPU is the same of any process, by its id.
func CPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }
