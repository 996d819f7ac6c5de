package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
)

func TestDefaultsAreSafeAndPrintedFileReadsBack(t *testing.T) {
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil {
		t.Fatalf("defaults: %v", err)
	}
	var b bytes.Buffer
	if err := c.Print(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "pelago.toml")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Load(name, nil)
	if err != nil {
		t.Fatalf("printed file: %v\n%s", err, b.String())
	}
	var c2 bytes.Buffer
	if err := again.Print(&c2); err != nil {
		t.Fatal(err)
	}
	if c2.String() != b.String() {
		t.Errorf("printed twice:\n%s\n%s", b.String(), c2.String())
	}
}

func TestFileThenEnvironmentRise(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pelago.toml")
	file := "site = 'north'\n[dicom]\nidle = '2m'\nmax_pdu = '64KiB'\n[store]\ngrace = '7d'\n"
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(name, []string{"PELAGO_SITE=south", "PELAGO_DICOM_OPEN_STORE=true", "PELAGO_HTTP_ORIGINS=https://a,https://b", "HOME=/x", "PELAGO_SAMPLES=/y"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Site != "south" || !c.DICOM.OpenStore || len(c.HTTP.Origins) != 2 ||
		time.Duration(c.DICOM.Idle) != 2*time.Minute || c.DICOM.MaxPDU != 64<<10 || time.Duration(c.Store.Grace) != 7*24*time.Hour {
		t.Errorf("got %+v", c)
	}
}

func TestUnknownKeysAreErrors(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pelago.toml")
	if err := os.WriteFile(name, []byte("[dicom]\nlisen = ':104'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name, nil); err == nil || !strings.Contains(err.Error(), "lisen") {
		t.Errorf("misspelled key: %v", err)
	}
	if _, err := Load("", []string{"PELAGO_DICOM_LISEN=:104"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("misspelled variable: %v", err)
	}
}

func TestWebFaceIsNotOpenByAccident(t *testing.T) {
	for _, test := range []struct {
		name   string
		set    func(*Config)
		denied bool
	}{
		{"loopback", func(*Config) {}, false},
		{"localhost", func(c *Config) { c.HTTP.Listen = "localhost:8080" }, false},
		{"all addresses", func(c *Config) { c.HTTP.Listen = ":8080" }, true},
		{"TLS without login", func(c *Config) { c.HTTP = HTTP{Listen: ":1", Certificate: "c", Key: "k"} }, true},
		{"login without TLS", func(c *Config) { c.HTTP = HTTP{Listen: ":1", Users: map[string]string{"a": "b"}} }, true},
		{"both", func(c *Config) {
			c.HTTP = HTTP{Listen: ":1", Certificate: "c", Key: "k", Users: map[string]string{"a": "b"}}
		}, false},
		{"told", func(c *Config) { c.HTTP.Listen, c.HTTP.Insecure = ":8080", true }, false},
	} {
		c := Default()
		test.set(&c)
		if err := c.Check(); fault.Is(err, fault.Denied) != test.denied && (err != nil) != test.denied {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestCheckNamesEverythingThatIsWrong(t *testing.T) {
	c := Default()
	c.DICOM.AE, c.DICOM.Listen, c.Log.Format = "A TITLE THAT IS TOO LONG", "nowhere", "xml"
	err := c.Check()
	for _, want := range []string{"dicom.ae", "dicom.listen", "log.format"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in %v", want, err)
		}
	}
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"0", "8GiB", " 1 KiB", "9223372036854775807", "9TiB9", "-1", "99999999TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b, again Bytes
		if b.UnmarshalText([]byte(s)) != nil {
			return
		}
		text, err := b.MarshalText()
		if err != nil || again.UnmarshalText(text) != nil || again != b {
			t.Errorf("%q: %d, written %q, read %d", s, b, text, again)
		}
	})
}
