package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pelago/dimse/dimsetest"
)

// layers lists the top-level folders from the top: an import may point down
// this list, or within a folder, and never up (ARCHITECTURE.md).
var layers = []string{"cmd", "chaos", "node", "query", "replication", "shard", "cluster", "dimse"}

// closed are the folders that import nothing of ours outside themselves, but
// for the vocabulary of failure.
var closed = []string{"cluster", "dimse"}

// blind are the folders that must not know what DICOM is: storage never parses it.
var blind = []string{"shard", "node/staging", "cluster"}

const vocabulary = "pelago/cluster/fault"

type listedPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Doc          string
	Dir          string
}

func packages(t *testing.T) []listedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Doc,Dir", "pelago/...")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var all []listedPackage
	for d := json.NewDecoder(out); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

func layer(path string) (int, string) {
	folder, _, _ := strings.Cut(strings.TrimPrefix(path, "pelago/"), "/")
	return slices.Index(layers, folder), folder
}

func TestImportsPointDown(t *testing.T) {
	for _, p := range packages(t) {
		from, folder := layer(p.ImportPath)
		if from < 0 {
			t.Errorf("%s: no such folder in the design", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, "pelago/") || imported == vocabulary {
				continue
			}
			to, target := layer(imported)
			if to < from {
				t.Errorf("%s imports %s: imports point down %v", p.ImportPath, imported, layers)
			}
			if slices.Contains(closed, folder) && target != folder {
				t.Errorf("%s imports %s: %s imports nothing of ours", p.ImportPath, imported, folder)
			}
			for _, b := range blind {
				if strings.HasPrefix(p.ImportPath, "pelago/"+b) && strings.HasPrefix(imported, "pelago/dimse") {
					t.Errorf("%s imports %s: storage never parses DICOM", p.ImportPath, imported)
				}
			}
			if strings.Contains(imported, "test") && !strings.Contains(p.ImportPath, "test") {
				t.Errorf("%s imports %s outside a test", p.ImportPath, imported)
			}
		}
	}
}

func TestHostileBytesNeverReachTheOracleParser(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, "github.com/suyashkumar/dicom") && !strings.Contains(p.ImportPath, "/generate") {
				t.Errorf("%s imports %s: it allocates whatever a file claims; tests only", p.ImportPath, imported)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" && hasCode(t, p.Dir) {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

func hasCode(t *testing.T, dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool { return !strings.HasSuffix(f, "_test.go") })
}

func TestNoMachineIsNamedInTheTree(t *testing.T) {
	root := filepath.Join("..", "..")
	out, err := exec.Command("git", "-C", root, "ls-files").Output()
	dimsetest.Need(t, err == nil, "this is no git checkout")
	banned := []string{"/wo" + "rk/", "/ro" + "ot/", "proxy.gol" + "ang.org", "registry.npm" + "js.org", "deb.deb" + "ian.org"}
	for name := range strings.Lines(string(out)) {
		b, err := os.ReadFile(filepath.Join(root, strings.TrimSpace(name)))
		if err != nil {
			continue // removed in the working tree
		}
		for _, word := range banned {
			if strings.Contains(string(b), word) {
				t.Errorf("%s names %q", strings.TrimSpace(name), word)
			}
		}
	}
}
