package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"

	"pelago/cluster/fault"
	"pelago/dimse"
)

// Config is everything that is set before a node starts. The zero value of an
// optional setting means its default, written by [Default].
type Config struct {
	Data string `toml:"data" comment:"The data directory. One node a directory; it is locked."`
	Site string `toml:"site" comment:"The hospital's name: the issuer of Patient IDs that name none."`

	DICOM DICOM `toml:"dicom"`
	HTTP  HTTP  `toml:"http"`
	Peer  Peer  `toml:"peer"`
	Store Store `toml:"store"`
	Audit Audit `toml:"audit"`
	Log   Log   `toml:"log"`
	Admin Admin `toml:"admin"`
}

// DICOM configures the DIMSE face.
type DICOM struct {
	AE              string   `toml:"ae" comment:"This node's application entity title."`
	Listen          string   `toml:"listen" comment:"Address of the plain DICOM port; empty: none."`
	ListenTLS       string   `toml:"listen_tls" comment:"Address of the DICOM TLS port, usually :2762; empty: none."`
	Certificate     string   `toml:"certificate" comment:"PEM file for DICOM TLS."`
	Key             string   `toml:"key" comment:"PEM file for DICOM TLS."`
	ClientCA        string   `toml:"client_ca" comment:"PEM file of the authorities that sign AEs' certificates."`
	CheckCalled     bool     `toml:"check_called" comment:"Refuse associations that call another title than ours."`
	OpenStore       bool     `toml:"open_store" comment:"Beyond loopback, let AEs that are not registered echo and store."`
	MaxAssociations int      `toml:"max_associations" comment:"At once; a fifth of them is kept for storing."`
	Idle            Duration `toml:"idle" comment:"An association without a message for this long is aborted; per AE in the registry."`
	CommitDeadline  Duration `toml:"commit_deadline" comment:"A storage commitment that is not safe by then has failed."`
	MaxPDU          Bytes    `toml:"max_pdu" comment:"Longest PDU that is taken."`
}

// HTTP configures the web face.
type HTTP struct {
	Listen      string            `toml:"listen" comment:"Address of the web port; empty: none."`
	Certificate string            `toml:"certificate" comment:"PEM file; with it the port speaks TLS."`
	Key         string            `toml:"key" comment:"PEM file."`
	Insecure    bool              `toml:"insecure" comment:"Serve beyond loopback without TLS or without login. Anyone who reaches the port then reads every patient."`
	Hosts       []string          `toml:"hosts" comment:"Names under which a proxy reaches a loopback port; * for any. Others are refused, so that no web page can pose as us."`
	Origins     []string          `toml:"origins" comment:"Web origins that may call us from a browser (CORS)."`
	Users       map[string]string `toml:"users" comment:"Name = password hash, as printed by 'pelago config password'."`
}

// Peer configures the port between sites.
type Peer struct {
	Listen string `toml:"listen" comment:"Address of the one port between sites. Unused in a network of one."`
}

// Store bounds what rests on disk.
type Store struct {
	Staging   Bytes    `toml:"staging" comment:"Most that arrivals may occupy before they are packed."`
	Ballast   Bytes    `toml:"ballast" comment:"Disk that always stays free; 0: the larger of 1 GiB and 1 %."`
	Gather    Duration `toml:"gather" comment:"Arrivals are packed at the latest after this long."`
	Grace     Duration `toml:"grace" comment:"Deleted objects can be restored for this long."`
	Cache     Bytes    `toml:"cache" comment:"Memory for each store's block cache."`
	Chunks    Bytes    `toml:"chunks" comment:"Memory for decoded images that were read last."`
	Memory    Bytes    `toml:"memory" comment:"Soft limit of the process's heap; the collector works harder near it."`
	Quiet     Duration `toml:"quiet" comment:"A series without arrivals for this long may be packed."`
	TableSize Bytes    `toml:"table_size" comment:"Packs gather to tables of about this size."`
}

// Audit configures the export of audit events.
type Audit struct {
	Syslog string   `toml:"syslog" comment:"host:port of an RFC 5425 collector (syslog over TLS); empty: none."`
	CA     string   `toml:"ca" comment:"PEM file of the collector's authority; empty: the system's."`
	Keep   Duration `toml:"keep" comment:"Events are kept at least this long."`
}

// Log configures the log on standard error.
type Log struct {
	Format string `toml:"format" comment:"text or json"`
	Level  string `toml:"level" comment:"debug, info, warn or error"`
}

// Admin configures what only administrators need.
type Admin struct {
	Profiles bool `toml:"profiles" comment:"Serve /debug/pprof on the web port."`
}

// Default returns the configuration of a node that is told nothing.
func Default() Config {
	return Config{
		Data: "pelago-data", Site: "local",
		DICOM: DICOM{
			AE: "PELAGO", Listen: "127.0.0.1:11112", MaxAssociations: 500,
			Idle: Duration(10 * time.Minute), CommitDeadline: Duration(24 * time.Hour), MaxPDU: 256 << 10,
		},
		HTTP: HTTP{Listen: "127.0.0.1:8080"},
		Peer: Peer{Listen: "127.0.0.1:7700"},
		Store: Store{
			Staging: 8 << 30, Gather: Duration(15 * time.Minute), Grace: Duration(30 * 24 * time.Hour),
			Cache: 64 << 20, Chunks: 128 << 20, Memory: 352 << 20, Quiet: Duration(30 * time.Second), TableSize: 256 << 20,
		},
		Audit: Audit{Keep: Duration(6 * 365 * 24 * time.Hour)},
		Log:   Log{Format: "text", Level: "info"},
	}
}

// Load reads a file (none if name is empty) and the environment over the
// defaults. Flags are the caller's to put on top; then [Config.Check].
func Load(name string, environ []string) (Config, error) {
	c := Default()
	if name != "" {
		b, err := os.ReadFile(name)
		if err != nil {
			return c, fault.New(fault.NotFound, "configuration: %w", err)
		}
		if err := decode(bytes.NewReader(b), &c); err != nil {
			return c, fault.New(fault.Invalid, "configuration %s: %w", filepath.Base(name), err)
		}
	}
	return c, c.environment(environ)
}

func decode(r io.Reader, c *Config) error {
	d := toml.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(c)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) {
		return fmt.Errorf("unknown keys:\n%s", strict.String())
	}
	return err
}

// Print writes the configuration as a file that reads back to itself, with a
// comment for every key. Password hashes are left out.
func (c Config) Print(w io.Writer) error {
	if len(c.HTTP.Users) > 0 {
		users := map[string]string{}
		for name := range c.HTTP.Users {
			users[name] = "(hidden)"
		}
		c.HTTP.Users = users
	}
	return toml.NewEncoder(w).Encode(c)
}

// Check reports everything that is wrong or unsafe, not just the first.
func (c *Config) Check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fault.New(fault.Invalid, format, args...)) }
	if c.Data == "" {
		wrong("data: a directory is needed")
	}
	if c.Site == "" || len(c.Site) > 64 {
		wrong("site: a name of 1 to 64 characters is needed")
	}
	if !dimse.IsTitle(c.DICOM.AE) {
		wrong("dicom.ae: %q is no application entity title (1 to 16 printable characters)", c.DICOM.AE)
	}
	for key, address := range map[string]string{
		"dicom.listen": c.DICOM.Listen, "dicom.listen_tls": c.DICOM.ListenTLS,
		"http.listen": c.HTTP.Listen, "peer.listen": c.Peer.Listen,
	} {
		if address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(address); err != nil {
			wrong("%s: %w", key, err)
		}
	}
	if c.DICOM.ListenTLS != "" && (c.DICOM.Certificate == "" || c.DICOM.Key == "") {
		wrong("dicom.listen_tls: DICOM TLS needs dicom.certificate and dicom.key")
	}
	if (c.HTTP.Certificate == "") != (c.HTTP.Key == "") {
		wrong("http: certificate and key go together")
	}
	if c.DICOM.MaxAssociations < 5 || c.DICOM.MaxAssociations > 10_000 {
		wrong("dicom.max_associations: 5 to 10000")
	}
	if c.DICOM.MaxPDU < 4<<10 || c.DICOM.MaxPDU > 16<<20 {
		wrong("dicom.max_pdu: 4 KiB to 16 MiB")
	}
	if c.Store.Ballast != 0 && c.Store.Ballast < 128<<20 {
		wrong("store.ballast: 0 or at least 128 MiB, without which the stores cannot be written on a full disk")
	}
	if c.Store.Staging < 64<<20 {
		wrong("store.staging: at least 64 MiB")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		wrong("log.format: text or json")
	}
	errs = append(errs, c.checkOpen())
	return errors.Join(errs...)
}

// checkOpen refuses to be open by accident (DESIGN §9, Web).
func (c *Config) checkOpen() error {
	if c.HTTP.Listen == "" || c.HTTP.Insecure || Loopback(c.HTTP.Listen) {
		return nil
	}
	if c.HTTP.Certificate == "" || len(c.HTTP.Users) == 0 {
		return fault.New(fault.Denied,
			"http.listen: %s is reachable from other machines: the web face needs http.certificate, http.key and http.users there, or --insecure", c.HTTP.Listen)
	}
	return nil
}

// Loopback reports whether an address to listen on is reachable from this
// machine only. Names other than localhost count as reachable.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
