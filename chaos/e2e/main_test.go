package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"

	"pelago/chaos/proc"
)

// pelagoBinary is the pelago that all tests run, built once by TestMain.
var pelagoBinary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "pelago-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if pelagoBinary, err = proc.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
