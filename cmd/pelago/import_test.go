package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pelago/dimse/dimsetest"
	"pelago/node/config"
)

// importInto runs an import and reads its report.
func importInto(t *testing.T, n *node, code int, paths ...string) importReport {
	t.Helper()
	r := pelago(t, nil, append([]string{"import", "--json", "--data", n.config.Data}, paths...)...)
	var report importReport
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != code {
		t.Fatalf("exit code %d, not %d: %v\n%s%s", r.code, code, err, r.stdout, r.stderr)
	}
	return report
}

func TestAnImportForgetsWhatAnotherNodeHasStored(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	image, broken := filepath.Join(dir, "image"), filepath.Join(dir, "broken")
	put(t, image, dimsetest.CT(7, 0).File())
	put(t, broken, dimsetest.CT(7, 1).File()[:1000])

	first := started(t, nil)
	importInto(t, first, 1, image, broken) // what was refused keeps the rest in mind
	if again := importInto(t, first, 1, image, broken); again.Skipped != 1 || again.Stored != 0 {
		t.Errorf("again: %+v", again)
	}
	first.end(t)

	second := started(t, func(c *config.Config) { c.HTTP.Listen = strings.TrimPrefix(first.baseURL, "http://") })
	defer second.end(t)
	if into := importInto(t, second, 1, image, broken); into.Stored != 1 || into.Skipped != 0 {
		t.Errorf("into another node: %+v", into)
	}
}

func TestAnImportTellsWhatBecameOfEachFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	n := started(t, nil)
	defer n.end(t)
	image := dimsetest.CT(7, 0)
	one, other, text := filepath.Join(dir, "one"), filepath.Join(dir, "other"), filepath.Join(dir, "text")
	put(t, one, image.File())
	image.PatientName = dimsetest.Names[1]
	put(t, other, image.File())
	put(t, text, []byte("of a tree it would be passed over, but somebody has named it"))
	importInto(t, n, 0, one)
	report := importInto(t, n, 1, other, text, os.DevNull)
	if !slices.Equal(report.Quarantined, []string{other}) || report.Warned != 1 {
		t.Errorf("other content: %+v", report)
	}
	var refused []string
	for _, r := range report.Refused {
		refused = append(refused, r.File)
	}
	if !slices.Equal(refused, []string{os.DevNull, text}) && !slices.Equal(refused, []string{text, os.DevNull}) {
		t.Errorf("no images: %+v", report)
	}
}

func put(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
