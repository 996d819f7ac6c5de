// Package samples finds the shared corpus of real DICOM files for tests.
package samples

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pelago/dimse/dimsetest"
)

// File is a line of the corpus's MANIFEST.tsv.
type File struct {
	Path    string // absolute
	Name    string // as in the manifest
	Bytes   int64
	Dcmdump string // "ok", or what dcmdump says of a file that is broken on purpose
	Notes   string
}

// Dir returns the corpus's folder: $PELAGO_SAMPLES, else ../shared/dicom beside
// the repository. Without it the test is skipped, loudly; in CI it fails.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("PELAGO_SAMPLES")
	if dir == "" {
		dir = filepath.Join(root(t), "..", "shared", "dicom")
	}
	_, err := os.Stat(filepath.Join(dir, "MANIFEST.tsv"))
	dimsetest.Need(t, err == nil, "no DICOM samples in "+dir+"; set PELAGO_SAMPLES")
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// All returns every file of the corpus.
func All(t testing.TB) []File {
	t.Helper()
	dir := Dir(t)
	f, err := os.Open(filepath.Join(dir, "MANIFEST.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var files []File
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		col := strings.Split(lines.Text(), "\t")
		if len(col) < 16 || col[0] == "path" {
			continue
		}
		size, err := strconv.ParseInt(col[2], 10, 64)
		if err != nil {
			t.Fatalf("MANIFEST.tsv: %v", err)
		}
		files = append(files, File{
			Path: filepath.Join(dir, col[0]), Name: col[0], Bytes: size, Dcmdump: col[13], Notes: col[15],
		})
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("MANIFEST.tsv names no files")
	}
	return files
}

// root returns the repository's folder: the nearest parent with a go.mod.
func root(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = up
	}
}
