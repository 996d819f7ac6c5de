package proc

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
)

// Result is what a command printed, and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Command runs `pelago` with arguments, in the environment of the node. The
// error is that of starting it; a command that fails has a code.
func (n *Node) Command(ctx context.Context, args ...string) (Result, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, n.o.Binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, n.environ()
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		err = nil
	}
	return Result{Stdout: out.String(), Stderr: errs.String(), Code: cmd.ProcessState.ExitCode()}, err
}
