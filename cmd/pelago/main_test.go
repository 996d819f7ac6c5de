package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

// ran is what a command left.
type ran struct {
	code           int
	stdout, stderr string
}

// pelago runs a command as main does.
func pelago(t *testing.T, environ []string, args ...string) ran {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(&env{
		ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &errs, environ: environ,
	}, args)
	return ran{code, out.String(), errs.String()}
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	good, typo, open := file("good.toml", "site = 'north'\n"), file("typo.toml", "sight = 'north'\n"), file("open.toml", "[http]\nlisten = ':8080'\n")
	uncertified := file("uncertified.toml", "[dicom]\ncertificate = '/nowhere.crt'\nkey = '/nowhere.key'\n")
	clear := file("clear.toml", "[http.users]\nviewer = 'secret'\n")
	newer := filepath.Join(dir, "newer")
	if err := errors.Join(os.Mkdir(newer, 0o700), os.WriteFile(filepath.Join(newer, "version"), []byte("pelago 99\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		args    string
		environ []string
		code    int
		out     string // in the output
		says    string // on standard error
	}{
		{"help", "--help", nil, 0, "Usage: pelago", ""},
		{"help of a command", "serve --help", nil, 0, "--dicom-open-store", ""},
		{"no command", "", nil, 2, "", "expected one of"},
		{"an unknown command", "frobnicate", nil, 2, "", "frobnicate"},
		{"an unknown flag", "serve --prot 1", nil, 2, "", "--prot"},
		{"a missing argument", "echo", nil, 2, "", "title"},
		{"an argument too many", "version now", nil, 2, "", "now"},
		{"a wrong value", "find --level patient", nil, 2, "", "--level"},
		{"a log format that is none", "serve --log-format xml", nil, 2, "", "--log-format"},
		{"a right that is none", "ae add CT1 10.0.0.1 --rights fly", nil, 2, "", "--rights"},

		{"a code that is none", "code 3x3", nil, 2, "", "no code"},
		{"a code that is chosen and given", "code auto --survives 2", nil, 2, "", "no code"},
		{"nothing that could survive", "code --survives 2", nil, 2, "", "K+M"},

		{"version", "version", nil, 0, "pelago ", ""},
		{"version as JSON", "version --json", nil, 0, `"version"`, ""},

		{"configuration", "config check " + good, nil, 0, "", ""},
		{"a misspelled key", "config check " + typo, nil, 2, "", "sight"},
		{"a misspelled variable", "config check", []string{"PELAGO_SIGHT=north"}, 2, "", "PELAGO_SIGHT"},
		{"a variable of a wrong form", "config check", []string{"PELAGO_DICOM_IDLE=soon"}, 2, "", "PELAGO_DICOM_IDLE"},
		{"open by accident", "config check " + open, nil, 1, "", "--insecure"},
		{"a certificate that is not there", "config check " + uncertified, nil, 2, "", "dicom.certificate"},
		{"a password in the clear", "config check " + clear, nil, 2, "", "http.users: viewer"},
		{"a file that is not there", "config check " + filepath.Join(dir, "nothing"), nil, 2, "", "nothing"},
		{"printed", "config print " + good, []string{"PELAGO_DICOM_AE=NORTH"}, 0, "ae = 'NORTH'", ""},
		{"a password's hash", "config password", []string{"PELAGO_PASSWORD=secret"}, 0, "pbkdf2-sha256$", ""},
		{"no password", "config password", nil, 2, "", "PELAGO_PASSWORD"},

		{"serving open by accident", "serve --http :0 --data " + filepath.Join(dir, "a"), nil, 1, "", "--insecure"},
		{"serving under a title that is none", "serve --ae TITLE_OF_MORE_THAN_16 --data " + filepath.Join(dir, "b"), nil, 2, "", "dicom.ae"},
		{"serving a newer directory", "serve --dicom 127.0.0.1:0 --http 127.0.0.1:0 --data " + newer, nil, 1, "", "newer Pelago"},
		{"serving somebody else's directory", "serve --dicom 127.0.0.1:0 --http 127.0.0.1:0 --data " + dir, nil, 2, "", "no Pelago data"},
		{"serving on a wrong address", "serve --dicom nowhere --data " + filepath.Join(dir, "c"), nil, 2, "", "dicom.listen"},

		{"no node: status", "status --data " + empty, nil, 1, "", "no node runs"},
		{"no node: find", "find --data " + empty, nil, 1, "", "no node runs"},
		{"no node: ae", "ae --data " + empty, nil, 1, "", "no node runs"},
		{"no node: conflicts", "conflicts --data " + empty, nil, 1, "", "no node runs"},
		{"no node: delete", "delete 1.2 --data " + empty, nil, 1, "", "no node runs"},
		{"no node: backup", "backup " + filepath.Join(dir, "backup") + " --data " + empty, nil, 1, "", "no node runs"},
		{"no node, no directory: verify", "verify --data " + empty, nil, 1, "", "no data directory"},
		{"nobody answers", "status --http http://127.0.0.1:1", nil, 1, "", "does not answer"},
		{"nobody answers: verify", "verify --http http://127.0.0.1:1", nil, 1, "", "does not answer"},
		{"no URL", "status --http nonsense", nil, 2, "", "is no URL"},
		{"too many at once", "import --parallel 1000 --data " + empty + " " + good, nil, 2, "", "--parallel"},
		{"a field that is none", "find --field Sight --data " + empty, nil, 1, "", "no node runs"},
		{"restoring what is no backup", "restore " + empty + " --data " + filepath.Join(dir, "d"), nil, 2, "", "no whole backup"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := pelago(t, test.environ, strings.Fields(test.args)...)
			if r.code != test.code || !strings.Contains(r.stdout, test.out) || !strings.Contains(r.stderr, test.says) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", r.code, test.code, r.stdout, r.stderr)
			}
			if test.code != 0 && strings.TrimSpace(r.stderr) == "" {
				t.Error("it failed without a word")
			}
		})
	}
}

func TestExitCodesOfErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{fault.New(fault.Invalid, "x"), 2},
		{fmt.Errorf("context: %w", fault.New(fault.Invalid, "x")), 2},
		{fault.New(fault.Corrupt, "x"), 1},
		{&exitError{exitDied, fault.New(fault.Unavailable, "x")}, 3},
		{fmt.Errorf("context: %w", &exitError{exitDied, errors.New("x")}), 3},
		{context.Canceled, 1},
	} {
		var out bytes.Buffer
		if code := exitCode(&env{stderr: &out}, test.err); code != test.code {
			t.Errorf("%v: %d, want %d", test.err, code, test.code)
		}
		if says := out.Len() > 0; says != (test.err != nil && !errors.Is(test.err, context.Canceled)) {
			t.Errorf("%v: says %q", test.err, out.String())
		}
	}
}

func TestJSONIsJSON(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(bad, []byte("site = ''\n[dicom]\nae = ''\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args, environ, out string // the value that each of them prints, by its path
		code               int
		at                 []string
	}{
		{"version --json", "", version, 0, []string{"version"}},
		{"config print --json", "PELAGO_DICOM_AE=NORTH", "NORTH", 0, []string{"dicom", "ae"}},
		{"config print --json", "PELAGO_STORE_QUIET=45s", "45s", 0, []string{"store", "quiet"}},
		{"config check --json", "", "true", 0, []string{"ok"}},
		{"config check --json " + bad, "", "false", 2, []string{"ok"}},
	} {
		r := pelago(t, []string{test.environ}, strings.Fields(test.args)...)
		var v any
		if err := json.Unmarshal([]byte(r.stdout), &v); err != nil {
			t.Errorf("%s: %v in %q", test.args, err, r.stdout)
			continue
		}
		for _, key := range test.at {
			object, _ := v.(map[string]any)
			v = object[key]
		}
		if fmt.Sprint(v) != test.out || r.code != test.code {
			t.Errorf("%s: %v is %v, want %s; exit code %d, want %d", test.args, test.at, v, test.out, r.code, test.code)
		}
	}
	var checked struct{ Problems []string }
	r := pelago(t, nil, "config", "check", "--json", bad)
	if err := json.Unmarshal([]byte(r.stdout), &checked); err != nil || len(checked.Problems) != 2 {
		t.Errorf("two things are wrong: %q, %v", r.stdout, err)
	}
	var password struct{ Hash string }
	r = pelago(t, []string{"PELAGO_PASSWORD=secret"}, "config", "password", "--json")
	if err := json.Unmarshal([]byte(r.stdout), &password); err != nil || !strings.HasPrefix(password.Hash, "pbkdf2-sha256$") {
		t.Errorf("a password's hash: %q, %v", r.stdout, err)
	}
}

func TestATableKeepsItsCellsWhateverIsInThem(t *testing.T) {
	var out strings.Builder
	if err := table(&out, []string{"SITE", "St. Anna"}, [][]string{{"a\tb", "c\nd\x1b[2Je"}}); err != nil {
		t.Fatal(err)
	}
	want := "SITE  St. Anna\na\uFFFDb   c\uFFFDd\uFFFD[2Je\n"
	if out.String() != want {
		t.Errorf("%q, not %q", out.String(), want)
	}
}
