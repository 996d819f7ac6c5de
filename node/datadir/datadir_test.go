package datadir

import (
	"os"
	"path/filepath"
	"testing"

	"pelago/cluster/fault"
)

func TestOneProcessAtATime(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !fault.Is(err, fault.Unavailable) {
		t.Errorf("second opening: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatalf("after closing: %v", err)
	}
	again.Close()
}

func TestNewerAndForeignDirectoriesAreRefusedUntouched(t *testing.T) {
	for _, test := range []struct {
		name, file, content string
		kind                fault.Kind
	}{
		{"newer", "version", "pelago 2\n", fault.Unsupported},
		{"garbled", "version", "\x00\x01", fault.Invalid},
		{"empty version", "version", "", fault.Invalid},
		{"foreign", "thesis.tex", "x", fault.Invalid},
	} {
		dir := t.TempDir()
		name := filepath.Join(dir, test.file)
		if err := os.WriteFile(name, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v", test.name, err)
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != test.content {
			t.Errorf("%s: the file was changed to %q (%v)", test.name, b, err)
		}
	}
}

func TestARunningNodeIsFoundAndGoneAfterClose(t *testing.T) {
	dir := t.TempDir()
	if _, err := Find(dir); !fault.Is(err, fault.Unavailable) {
		t.Errorf("before: %v", err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := Node{PID: 7, HTTP: "http://127.0.0.1:1", AE: "A", Token: "secret"}
	if err := d.Announce(want); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(dir); err != nil || got != want {
		t.Errorf("found %+v, %v", got, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(dir); !fault.Is(err, fault.Unavailable) {
		t.Errorf("after: %v", err)
	}
}
