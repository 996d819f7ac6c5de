package e2e

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The demonstrations are what people try first: every step must work.
func TestDemonstrations(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many nodes")
	}
	for name, steps := range map[string]int{"1": 8, "3": 21} {
		t.Run(name+" sites", func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, pelagoBinary, "demo", "--exit", "--json", "--sites", name, "--samples", filepath.Join(t.TempDir(), "none"))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			said := 0
			for line := range strings.Lines(string(out)) {
				var step struct{ Step int }
				if err := json.Unmarshal([]byte(line), &step); err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				if said++; step.Step != said {
					t.Errorf("step %d where %d is due: %s", step.Step, said, line)
				}
			}
			if said != steps {
				t.Errorf("%d steps, want %d:\n%s", said, steps, out)
			}
		})
	}
}
