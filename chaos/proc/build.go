package proc

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build compiles the pelago binary of the module that the working directory is
// in, into a folder, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "pelago")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "pelago/cmd/pelago")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pelago: %w\n%s", err, out)
	}
	return binary, nil
}
