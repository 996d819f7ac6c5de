package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"pelago/dimse/dict"
	"pelago/node/admin"
	"pelago/query/plan"
)

// document reads a file of the repository.
func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// missing reports the words that a document does not hold in backquotes.
func missing(t *testing.T, name string, words []string) {
	t.Helper()
	if len(words) == 0 {
		t.Fatalf("nothing to look for in %s", name)
	}
	text := document(t, name)
	for _, word := range words {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("%s does not mention `%s`", name, word)
		}
	}
}

func TestConformanceStatementListsWhatIsTaken(t *testing.T) {
	words := dict.StorageClasses()
	for _, s := range dict.Syntaxes() {
		words = append(words, s.UID)
	}
	missing(t, "docs/conformance.md", words)
}

func TestFormatOfTheIndexesIsThatOfTheirVersion(t *testing.T) {
	written := fmt.Sprintf("Version %d (`query/plan`)", plan.Indexer{}.Version())
	if !strings.Contains(document(t, "docs/formats/catalog.md"), written) {
		t.Errorf("docs/formats/catalog.md does not say %q", written)
	}
}

func TestOperationsDescribeEveryCommand(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.Name("pelago"))
	if err != nil {
		t.Fatal(err)
	}
	var first []string // cells of tables
	for row := range strings.Lines(document(t, "docs/operations.md")) {
		if cells := strings.Split(row, "|"); len(cells) > 2 {
			first = append(first, cells[1])
		}
	}
	if len(parser.Model.Children) == 0 {
		t.Fatal("no commands")
	}
	for _, command := range parser.Model.Children {
		if !slices.ContainsFunc(first, func(cell string) bool { return strings.Contains(cell, "`"+command.Name+"`") }) {
			t.Errorf("docs/operations.md has no row for `%s`", command.Name)
		}
	}
}

func TestOperationsDescribeEveryFieldOfTheStatus(t *testing.T) {
	var words []string
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct {
			return
		}
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			words = append(words, name)
			walk(of.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[admin.Status]())
	_, section, _ := strings.Cut(document(t, "docs/operations.md"), "\n## Status\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, word := range words {
		if !regexp.MustCompile("[`.]" + word + "[`.\\[]").MatchString(section) {
			t.Errorf("docs/operations.md, Status, does not mention %s", word)
		}
	}
}

func TestOperationsDescribeEveryMetric(t *testing.T) {
	var words []string
	for _, name := range []string{"cmd/pelago/report.go", "cmd/pelago/placement.go", "node/admin/metrics.go"} {
		for _, found := range regexp.MustCompile(`"(pelago_[a-z_]+)"`).FindAllStringSubmatch(document(t, name), -1) {
			words = append(words, found[1])
		}
	}
	if len(words) < 10 {
		t.Fatalf("only %d metrics found", len(words))
	}
	missing(t, "docs/operations.md", words)
}

func TestArchitectureListsEveryPackage(t *testing.T) {
	root := filepath.Join("..", "..")
	var packages []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if base := entry.Name(); name != root && (base == "testdata" || strings.HasPrefix(base, ".")) {
				return filepath.SkipDir
			}
			return nil
		}
		folder, err := filepath.Rel(root, filepath.Dir(name))
		if filepath.Ext(name) == ".go" && !slices.Contains(packages, filepath.ToSlash(folder)) {
			packages = append(packages, filepath.ToSlash(folder))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(document(t, "ARCHITECTURE.md"), "\n## Packages\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var listed []string
	for _, cell := range regexp.MustCompile(`(?m)^\|([^|]*)\|`).FindAllStringSubmatch(section, -1) {
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell[1], -1) {
			listed = append(listed, name[1])
		}
	}
	slices.Sort(packages)
	slices.Sort(listed)
	if len(packages) < 30 || !slices.Equal(packages, listed) {
		t.Errorf("ARCHITECTURE.md, Packages, lists\n%q\nthere are\n%q", listed, packages)
	}
}

func TestDecisionsAreListedInTheirOrder(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "decisions", "[0-9]*.md")) // ascending
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var want, listed []string
	for _, name := range files {
		want = append(want, filepath.Base(name))
	}
	for _, row := range regexp.MustCompile(`(?m)^\| \[(\d+)\]\((\d+)(\S+\.md)\) \|`).FindAllStringSubmatch(document(t, "docs/decisions/README.md"), -1) {
		listed = append(listed, row[2]+row[3])
		if row[1] != row[2] {
			t.Errorf("docs/decisions/README.md: %s is called %s", row[2]+row[3], row[1])
		}
	}
	if !slices.Equal(listed, want) {
		t.Errorf("docs/decisions/README.md lists\n%q\nthere are\n%q", listed, want)
	}
}

func TestDependenciesAreListedWithTheirVersions(t *testing.T) {
	required, _, _ := strings.Cut(document(t, "go.mod"), ")")
	rows := document(t, "docs/dependencies.md")
	modules := regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(required, -1)
	if len(modules) < 5 {
		t.Fatalf("go.mod: %d direct dependencies found", len(modules))
	}
	for _, m := range modules {
		if !strings.Contains(rows, "| `"+m[1]+"` | "+m[2]+" |") {
			t.Errorf("docs/dependencies.md has no row for %s at %s", m[1], m[2])
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\S+\\.\\S+/\\S+|pgregory\\S+)` \\| v").FindAllStringSubmatch(rows, -1) {
		if !slices.ContainsFunc(modules, func(m []string) bool { return m[1] == row[1] }) {
			t.Errorf("docs/dependencies.md lists %s, which go.mod does not require directly", row[1])
		}
	}
}

// markdown lists README.md and the like, and everything under docs/.
func markdown(t *testing.T) []string {
	t.Helper()
	root := filepath.Join("..", "..")
	files, err := filepath.Glob(filepath.Join(root, "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && filepath.Ext(name) == ".md" {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestLinksBetweenDocumentsLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	drop := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	anchors := func(text string) []string {
		var all []string
		for _, h := range heading.FindAllStringSubmatch(text, -1) {
			all = append(all, strings.ReplaceAll(drop.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
		}
		return all
	}
	links := 0
	for _, name := range markdown(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(b), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			links++
			file, text := name, string(b)
			if target != "" {
				file = filepath.Join(filepath.Dir(name), filepath.FromSlash(target))
				info, err := os.Stat(file)
				if err != nil {
					t.Errorf("%s: link to %s: %v", name, found[1], err)
					continue
				}
				if info.IsDir() || anchor == "" {
					continue
				}
				other, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				text = string(other)
			}
			if !slices.Contains(anchors(text), anchor) {
				t.Errorf("%s: link to %s: %s has no such heading", name, found[1], file)
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were looked at", links)
	}
}
