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

func TestAListInTheEnvironmentMayBeEmptyOrSpaced(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pelago.toml")
	if err := os.WriteFile(name, []byte("[http]\nhosts = ['a', 'b']\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]int{"": 0, " ": 0, "x": 1, " x , y ,": 2} {
		c, err := Load(name, []string{"PELAGO_HTTP_HOSTS=" + value})
		if err != nil || len(c.HTTP.Hosts) != want || want > 0 && c.HTTP.Hosts[0] != "x" {
			t.Errorf("%q: %q, %v", value, c.HTTP.Hosts, err)
		}
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

func TestAnErrorInTheFileNamesItsPlace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pelago.toml")
	for text, place := range map[string]string{
		"site = 'x'\n[dicom]\nidle = '5'\n":  "line 3",
		"site = 'x'\nhttp = [\n":             "line 2",
		"[store]\nstaging = 'lots'\n":        "line 2",
		"[http]\n\ninsecure = 'certainly'\n": "line 3",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(name, nil); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), place) {
			t.Errorf("%q: %v", text, err)
		}
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

func TestCheckRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no directory":                        func(c *Config) { c.Data = "" },
		"no site":                             func(c *Config) { c.Site = "" },
		"a site with a slash":                 func(c *Config) { c.Site = "a/b" },
		"a site with a backslash":             func(c *Config) { c.Site = `a\b` },
		"a site of blanks":                    func(c *Config) { c.Site = "  " },
		"a site with a line feed":             func(c *Config) { c.Site = "a\nb" },
		"a site that is no text":              func(c *Config) { c.Site = "a\xff" },
		"a long site":                         func(c *Config) { c.Site = strings.Repeat("ä", 65) },
		"DICOM TLS without a certificate":     func(c *Config) { c.DICOM.ListenTLS = ":2762" },
		"a certificate without a key":         func(c *Config) { c.DICOM.Certificate = "c" },
		"authorities without a certificate":   func(c *Config) { c.DICOM.ClientCA = "c" },
		"a web certificate without a key":     func(c *Config) { c.HTTP.Certificate = "c" },
		"few associations":                    func(c *Config) { c.DICOM.MaxAssociations = 4 },
		"many associations":                   func(c *Config) { c.DICOM.MaxAssociations = 10_001 },
		"small PDUs":                          func(c *Config) { c.DICOM.MaxPDU = 4095 },
		"no idle time":                        func(c *Config) { c.DICOM.Idle = 0 },
		"no deadline of storage commitment":   func(c *Config) { c.DICOM.CommitDeadline = 0 },
		"no heap beside the chunks":           func(c *Config) { c.Store.Chunks = c.Store.Memory - 2*c.Store.Cache - 128<<20 + 1 },
		"little staging":                      func(c *Config) { c.Store.Staging = 64<<20 - 1 },
		"little ballast":                      func(c *Config) { c.Store.Ballast = 1 },
		"a grace that nobody notices":         func(c *Config) { c.Store.Grace = 0 },
		"a grace beyond the catalogue's":      func(c *Config) { c.Store.Grace = Duration(31 * 24 * time.Hour) },
		"no quiet":                            func(c *Config) { c.Store.Quiet = 0 },
		"no gathering":                        func(c *Config) { c.Store.Gather = 0 },
		"tiny tables":                         func(c *Config) { c.Store.TableSize = 1 },
		"huge tables":                         func(c *Config) { c.Store.TableSize = 3 << 30 },
		"a collector without a port":          func(c *Config) { c.Audit.Syslog = "host" },
		"a level that is none":                func(c *Config) { c.Log.Level = "loud" },
		"a user without a name":               func(c *Config) { c.HTTP.Users = map[string]string{"": "h"} },
		"a user with a colon":                 func(c *Config) { c.HTTP.Users = map[string]string{"a:b": "h"} },
		"a user without a password":           func(c *Config) { c.HTTP.Users = map[string]string{"a": ""} },
		"a title in blanks":                   func(c *Config) { c.DICOM.AE = " PELAGO" },
		"a site that is a folder":             func(c *Config) { c.Site = ".." },
		"an address between nodes that is no": func(c *Config) { c.Peer.Listen = "x" },
		"all addresses, and none to tell":     func(c *Config) { c.Peer.Listen = ":7700" },
		"all addresses of IPv6":               func(c *Config) { c.Peer.Listen = "[::]:7700" },
		"all addresses told to others":        func(c *Config) { c.Peer.Advertise = "0.0.0.0:7700" },
		"a network in upper case":             func(c *Config) { c.Network = "North" },
		"a long network":                      func(c *Config) { c.Network = strings.Repeat("a", 64) },
		"a place to join that is none":        func(c *Config) { c.Peer.Join = "pacs" },
		"joining without a port":              func(c *Config) { c.Peer.Join, c.Peer.Listen = "a:7700", "" },
	} {
		c := Default()
		change(&c)
		if err := c.Check(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := Default()
	c.Site = "Klinikum Süd (Haus 3)"
	if err := c.Check(); err != nil {
		t.Errorf("a plain site: %v", err)
	}
}

func TestAnAdvertisedAddressMayLeaveThePortToWhereItListens(t *testing.T) {
	for advertise, want := range map[string]string{
		"pacs.example": "pacs.example 7", "pacs.example:7700": "pacs.example 7700", "pacs.example:0": "pacs.example 7",
		"10.0.0.1": "10.0.0.1 7", "fd00::1": "fd00::1 7", "[fd00::1]": "fd00::1 7", "[fd00::1]:7700": "fd00::1 7700",
	} {
		c := Default()
		c.Peer.Listen, c.Peer.Advertise = ":0", advertise
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", advertise, err)
		}
		if host, port := c.Peer.AdvertisedAs("7"); host+" "+port != want {
			t.Errorf("%s: %s %s", advertise, host, port)
		}
	}
}

func TestThePrintedConfigurationHoldsNoToken(t *testing.T) {
	c := Default()
	c.Peer.Join, c.Peer.Token = "a:7700", "pelago1secret"
	var b bytes.Buffer
	if err := c.Print(&b); err != nil || strings.Contains(b.String(), "secret") {
		t.Errorf("%v\n%s", err, b.String())
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
