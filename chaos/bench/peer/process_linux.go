package peer

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attributes makes the kernel end a child whose parent has died.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// CPU is the processor time of all threads of the process, in nanoseconds as
// the scheduler counts it.
func (p *Process) CPU() (time.Duration, error) {
	took, err := CPU(p.PID())
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.Name, err)
	}
	return took, nil
}

// CPU is the same of any process, by its id.
func CPU(pid int) (time.Duration, error) {
	// The clock of another process, as clock_getcpuclockid(3) makes it; 2 is the
	// scheduler's count.
	clock := int32(^pid<<3 | 2)
	var t unix.Timespec
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
