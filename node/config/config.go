package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/dimse"
)

// Config is everything that is set before a node starts. The zero value of an
// optional setting means its default, written by [Default].
type Config struct {
	Data string `toml:"data" comment:"The data directory. One node a directory; it is locked."`
	Site string `toml:"site" comment:"The hospital's name: the issuer of Patient IDs that name none. Once the node has started, its certificate names the site."`
	// Network is asked for when a network is founded or joined.
	Network string `toml:"network" comment:"The network's name, when this node founds one (a-z, 0-9, hyphens; empty: one is made up), and which it must be otherwise."`

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

// Peer configures the port between nodes, and how this one becomes a member.
type Peer struct {
	Listen    string `toml:"listen" comment:"Address of the one port between nodes; empty: none, and the network stays one node."`
	Advertise string `toml:"advertise" comment:"Where other nodes reach it, host or host:port; empty: where it listens."`
	Join      string `toml:"join" comment:"host:port of any node of the network that a fresh node joins; empty: it founds one."`
	Token     string `toml:"token" comment:"The token to join by, from 'pelago token'. Better given as PELAGO_PEER_TOKEN."`
	Witness   bool   `toml:"witness" comment:"Join or found as a witness: it votes, and keeps no images."`
}

// Store bounds what rests on disk.
type Store struct {
	Staging        Bytes    `toml:"staging" comment:"Most that arrivals may occupy before they are packed."`
	Ahead          Bytes    `toml:"ahead" comment:"Of this, what is written before there is need, so that syncs are quicker; at most a quarter; 0: none."`
	Cached         Bytes    `toml:"cached" comment:"Most that copies of other nodes' studies may occupy, which were opened here; 0: a tenth of the disk."`
	Pledge         Bytes    `toml:"pledge" comment:"Most that shards of the network's studies may occupy here; 0: four fifths of what the disk has for this node."`
	EvictAbove     int      `toml:"evict_above" comment:"Percent of the disk in use above which whole copies of studies that arrived here are given up, if all their shards are proved at other sites; 0: never."`
	EvictBelow     int      `toml:"evict_below" comment:"Until so many percent are in use; 0: five less than that."`
	EvictUntouched Duration `toml:"evict_untouched" comment:"What arrived here, or was opened, within this time is kept whole."`
	Ballast        Bytes    `toml:"ballast" comment:"Disk that always stays free; 0: the larger of 1 GiB and 1 %."`
	Gather         Duration `toml:"gather" comment:"Arrivals are packed at the latest after this long."`
	Grace          Duration `toml:"grace" comment:"Deleted objects can be restored for this long."`
	Cache          Bytes    `toml:"cache" comment:"Memory for each store's block cache."`
	Chunks         Bytes    `toml:"chunks" comment:"Memory for decoded images that were read lately."`
	Memory         Bytes    `toml:"memory" comment:"Soft limit of the heap and the decoded images together; the collector works harder near it. 0: none."`
	Quiet          Duration `toml:"quiet" comment:"A series without arrivals for this long may be packed."`
	TableSize      Bytes    `toml:"table_size" comment:"Packs gather to tables of about this size."`
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
			Staging: 8 << 30, Ahead: 512 << 20, Gather: Duration(15 * time.Minute), Grace: Duration(30 * 24 * time.Hour), EvictUntouched: Duration(30 * 24 * time.Hour),
			Cache: 64 << 20, Chunks: 256 << 20, Memory: 576 << 20, Quiet: Duration(30 * time.Second), TableSize: 256 << 20,
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
	var at *toml.DecodeError
	if errors.As(err, &at) {
		line, column := at.Position()
		return fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	return err
}

// Print writes the configuration as a file that reads back to itself, with a
// comment for every key. Password hashes and the token are left out.
func (c Config) Print(w io.Writer) error {
	if c.Peer.Token != "" {
		c.Peer.Token = "(hidden)"
	}
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
	var k checker
	k.check(c.Data != "", "data: a directory is needed")
	k.check(plainName(c.Site), "site: a name of 1 to %d printable characters is needed, without backslash and slash", maxSite)
	c.DICOM.check(&k)
	c.HTTP.check(&k)
	k.check(c.Network == "" || networkName(c.Network), "network: a name of 1 to %d of a-z, 0-9 and inner hyphens", maxNetwork)
	c.Peer.check(&k)
	c.Store.check(&k)
	if c.Audit.Syslog != "" {
		k.address("audit.syslog", c.Audit.Syslog)
	}
	k.check(c.Log.Format == "text" || c.Log.Format == "json", "log.format: text or json")
	var level slog.Level
	k.check(level.UnmarshalText([]byte(c.Log.Level)) == nil, "log.level: debug, info, warn or error")
	return errors.Join(errors.Join(k.errs...), c.checkOpen())
}

// checker gathers what is wrong.
type checker struct{ errs []error }

func (k *checker) check(ok bool, format string, args ...any) {
	if !ok {
		k.errs = append(k.errs, fault.New(fault.Invalid, format, args...))
	}
}

// address wants host:port; an empty one is a face that is not served.
func (k *checker) address(key, address string) {
	if address == "" {
		return
	}
	_, _, err := net.SplitHostPort(address)
	k.check(err == nil, "%s: %w", key, err)
}

func (d *DICOM) check(k *checker) {
	k.check(dimse.IsTitle(d.AE), "dicom.ae: %q is no application entity title (1 to 16 printable characters)", d.AE)
	k.address("dicom.listen", d.Listen)
	k.address("dicom.listen_tls", d.ListenTLS)
	k.check(d.ListenTLS == "" || d.Certificate != "", "dicom.listen_tls: DICOM TLS needs dicom.certificate and dicom.key")
	k.check((d.Certificate == "") == (d.Key == ""), "dicom: certificate and key go together")
	k.check(d.ClientCA == "" || d.Certificate != "", "dicom.client_ca: DICOM TLS needs dicom.certificate and dicom.key")
	k.check(d.MaxAssociations >= 5 && d.MaxAssociations <= 10_000, "dicom.max_associations: 5 to 10000")
	k.check(d.MaxPDU >= 4<<10 && d.MaxPDU <= 16<<20, "dicom.max_pdu: 4 KiB to 16 MiB")
	k.check(time.Duration(d.Idle) >= time.Second, "dicom.idle: at least 1 s")
	k.check(time.Duration(d.CommitDeadline) >= time.Minute, "dicom.commit_deadline: at least 1 min")
}

func (h *HTTP) check(k *checker) {
	k.address("http.listen", h.Listen)
	k.check((h.Certificate == "") == (h.Key == ""), "http: certificate and key go together")
	for name, hash := range h.Users {
		k.check(name != "" && !strings.ContainsAny(name, ":\x00"), "http.users: %q is no name to log in under", name)
		k.check(hash != "", "http.users: %s has no password hash", name)
	}
}

func (p *Peer) check(k *checker) {
	k.address("peer.listen", p.Listen)
	k.address("peer.join", p.Join)
	k.check(p.Join == "" || p.Listen != "", "peer.join: a node of a network needs peer.listen, where the others reach it")
	if p.Advertise == "" {
		host, _, err := net.SplitHostPort(p.Listen)
		k.check(p.Listen == "" || err != nil || host != "" && !unspecified(host),
			"peer.advertise: peer.listen is all of this machine's addresses: say which of them other nodes reach")
		return
	}
	host, _ := p.AdvertisedAs("0")
	k.check(host != "" && !unspecified(host), "peer.advertise: a host or host:port that other nodes reach")
}

// AdvertisedAs returns the host and the port of peer.advertise, where it names
// none the port given.
func (p *Peer) AdvertisedAs(number string) (host, port string) {
	if host, port, err := net.SplitHostPort(p.Advertise); err == nil {
		if port == "" || port == "0" {
			port = number
		}
		return host, port
	}
	return strings.Trim(p.Advertise, "[]"), number
}

func unspecified(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}

// heapBeside is the least heap beside block caches: the rows that both stores
// hold in memory until they are flushed, at most 96 MiB while much comes in, and
// room to work. They are in use, so that a collector held to less would run
// without end and free nothing (decision 0030).
const heapBeside = 128 << 20

func (s *Store) check(k *checker) {
	k.check(s.Staging >= 64<<20, "store.staging: at least 64 MiB")
	k.check(s.Ballast == 0 || s.Ballast >= 128<<20,
		"store.ballast: 0 or at least 128 MiB, without which the stores cannot be written on a full disk")
	k.check(s.Pledge >= 0 && s.Pledge <= layout.MaxPledge, "store.pledge: 0 to 4096 TiB")
	k.check(s.EvictAbove == 0 || s.EvictAbove >= 20 && s.EvictAbove <= 99, "store.evict_above: 0 or 20 to 99")
	k.check(s.EvictBelow == 0 || s.EvictBelow >= 10 && s.EvictBelow < s.EvictAbove, "store.evict_below: 0, or from 10 to below store.evict_above")
	k.check(s.EvictUntouched >= 0, "store.evict_untouched: not negative")
	k.check(s.Memory == 0 || s.Memory-s.Chunks-2*s.Cache >= heapBeside,
		"store.memory: 0 or at least 128 MiB above store.chunks and two store.cache, which it holds too")
	k.check(s.Grace >= minGrace && s.Grace <= maxGrace, "store.grace: 1h to 30d, which is how long a deletion can be taken back")
	k.check(s.Quiet > 0 && s.Gather > 0, "store.quiet, store.gather: more than nothing")
	k.check(s.TableSize == 0 || s.TableSize >= 1<<20 && s.TableSize <= 2<<30, "store.table_size: 1 MiB to 2 GiB")
}

// Bounds of the delete grace. The catalogue takes no deletion back after 30 days
// (DESIGN §2), so keeping bytes longer would promise what nobody can have; and
// an operator's slip needs an hour to be noticed.
const (
	minGrace = Duration(time.Hour)
	maxGrace = Duration(30 * 24 * time.Hour)
)

// maxNetwork is the longest name of a network: a DNS label.
const maxNetwork = 63

// networkName is the rule of cluster/authority.
func networkName(name string) bool {
	return authority.Name{Network: name, Site: "x", Node: strings.Repeat("a", 32)}.Check() == nil
}

// maxSite is the longest name of a site: it is the issuer of Patient IDs that
// name none (0010,0021), VR LO.
const maxSite = 64

// plainName reports whether a site's name can stand in attributes and keys.
func plainName(name string) bool {
	if name == "" || name == "." || name == ".." || utf8.RuneCountInString(name) > maxSite || strings.TrimSpace(name) != name || !utf8.ValidString(name) {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r == '\\' || r == '/' || !unicode.IsPrint(r) })
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
