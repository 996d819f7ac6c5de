package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"

	"pelago/cluster/fault"
	"pelago/node/config"
)

// serveCommand runs a node. Flags override the file and the environment.
type serveCommand struct {
	Config         string `help:"TOML file; 'pelago config print' shows all keys." env:"PELAGO_CONFIG" type:"existingfile"`
	Data           string `help:"The data directory."`
	Site           string `help:"The hospital's name."`
	AE             string `name:"ae" help:"Our application entity title."`
	DICOM          string `name:"dicom" help:"Address of the DICOM port."`
	HTTP           string `name:"http" help:"Address of the web port."`
	Peer           string `help:"Address of the port between nodes."`
	Advertise      string `help:"Where other nodes reach it, host or host:port."`
	Join           string `help:"host:port of any node of the network to join."`
	Token          string `help:"The token to join by; better in PELAGO_PEER_TOKEN, which nobody else sees."`
	Witness        bool   `help:"Join or found as a witness: it votes, and keeps no images."`
	DicomOpenStore bool   `help:"Beyond loopback, let unregistered AEs echo and store."`
	Insecure       bool   `help:"Serve the web face beyond loopback without TLS and login."`
	LogFormat      string `help:"text or json" enum:"text,json," default:""`
}

// load puts the flags over the file and the environment.
func (s *serveCommand) load(environ []string) (config.Config, error) {
	c, err := config.Load(s.Config, environ)
	if err != nil {
		return c, err
	}
	for _, flag := range []struct {
		from string
		to   *string
	}{
		{s.Data, &c.Data}, {s.Site, &c.Site}, {s.AE, &c.DICOM.AE}, {s.DICOM, &c.DICOM.Listen},
		{s.HTTP, &c.HTTP.Listen}, {s.Peer, &c.Peer.Listen}, {s.Advertise, &c.Peer.Advertise}, {s.Join, &c.Peer.Join}, {s.Token, &c.Peer.Token}, {s.LogFormat, &c.Log.Format},
	} {
		if flag.from != "" {
			*flag.to = flag.from
		}
	}
	c.DICOM.OpenStore = c.DICOM.OpenStore || s.DicomOpenStore
	c.Peer.Witness = c.Peer.Witness || s.Witness
	c.HTTP.Insecure = c.HTTP.Insecure || s.Insecure
	return c, c.Check()
}

// syncsAtOnce is how many goroutines are in an fdatasync at once while instances
// come in: two of staging, and one for each log of store/ and catalog/. Each
// holds one of the scheduler's GOMAXPROCS places until a monitor, which for that
// looks every 20 µs, takes it away. With as many places more nothing has to be
// taken away: processors do not stand idle meanwhile (decision 0029).
const syncsAtOnce = 4

// Run serves until it is interrupted.
func (s *serveCommand) Run(e *env) error {
	c, err := s.load(e.environ)
	if err != nil {
		return err
	}
	log, err := newLog(e, c.Log)
	if err != nil {
		return err
	}
	if limit := heapLimit(c.Store); limit > 0 {
		debug.SetMemoryLimit(limit) // heap.task goes on from there
	}
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncsAtOnce)
	}
	n, err := startNode(e.ctx, c, log)
	if err != nil {
		return err
	}
	n.greet(e.stderr)
	return n.wait()
}

// heapLimit is the configured soft limit of Go's memory; 0: none, or the
// environment's, which is the runtime's to keep.
func heapLimit(s config.Store) int64 {
	if os.Getenv("GOMEMLIMIT") != "" || s.Memory == 0 {
		return 0
	}
	return int64(s.Memory) - int64(s.Chunks)
}

// greet says where the node is reached; a port that is not served has no line.
func (n *node) greet(w io.Writer) {
	fmt.Fprintf(w, "pelago: network %s, site %s, node %s, AE %s\n", n.network.membership.Name().Network, n.config.Site, n.id, n.config.DICOM.AE)
	for _, line := range []struct{ what, where string }{
		{"DICOM", n.dicomAddr}, {"DICOM TLS", n.dicomTLSAddr}, {"web", n.baseURL}, {"nodes", n.network.place.Address}, {"data", n.config.Data},
	} {
		if line.where != "" {
			fmt.Fprintf(w, "  %-9s  %s\n", line.what, line.where)
		}
	}
}

func newLog(e *env, c config.Log) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, fault.New(fault.Invalid, "log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(e.stderr, options)), nil
	}
	return slog.New(slog.NewTextHandler(e.stderr, options)), nil
}
