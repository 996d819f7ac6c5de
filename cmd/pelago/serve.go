package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/scp"
	"pelago/node/admin"
	"pelago/node/ae"
	"pelago/node/archive"
	"pelago/node/config"
	"pelago/node/datadir"
	"pelago/node/web"
	"pelago/query/engine"
	"pelago/shard/keys"
)

// serveCommand runs a node. Flags override the file and the environment.
type serveCommand struct {
	Config         string `help:"TOML file; 'pelago config print' shows all keys." env:"PELAGO_CONFIG" type:"existingfile"`
	Data           string `help:"The data directory."`
	Site           string `help:"The hospital's name."`
	AE             string `name:"ae" help:"Our application entity title."`
	DICOM          string `name:"dicom" help:"Address of the DICOM port."`
	HTTP           string `name:"http" help:"Address of the web port."`
	Peer           string `help:"Address of the port between sites."`
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
		{s.HTTP, &c.HTTP.Listen}, {s.Peer, &c.Peer.Listen}, {s.LogFormat, &c.Log.Format},
	} {
		if flag.from != "" {
			*flag.to = flag.from
		}
	}
	c.DICOM.OpenStore = c.DICOM.OpenStore || s.DicomOpenStore
	c.HTTP.Insecure = c.HTTP.Insecure || s.Insecure
	return c, c.Check()
}

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
	if os.Getenv("GOMEMLIMIT") == "" && c.Store.Memory > 0 {
		debug.SetMemoryLimit(int64(c.Store.Memory))
	}
	n, err := startNode(e.ctx, c, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "pelago: site %s, node %s\n  DICOM  %s (AE %s)\n  web    %s\n  data   %s\n",
		c.Site, n.id, n.dicomAddr, c.DICOM.AE, n.baseURL, c.Data)
	return n.wait()
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

// node is a running node. Its parts are started in the order of the fields
// below and stopped in reverse.
type node struct {
	config config.Config
	log    *slog.Logger
	id     string
	began  time.Time

	dir      *datadir.Dir
	keys     *keys.Ring
	archive  *archive.Archive
	trail    *trail
	face     *ae.Face
	dimse    *scp.Server
	http     *http.Server
	requests *gate
	metrics  *admin.Metrics

	dicomAddr, baseURL string

	stopWork context.CancelFunc // ends the background work
	work     *errgroup.Group
	faces    *errgroup.Group
	fatal    context.CancelCauseFunc
	ending   context.Context
	broken   atomic.Bool // a store cannot be written: it must not be closed in order
}

// Time limits of a clean shutdown.
const (
	drainTime = 20 * time.Second // for associations and requests under way
	closeTime = 10 * time.Second
)

// startNode opens the data directory and starts everything; when it returns the
// node is ready. The order: first what must not be shared (the lock), then what
// makes bytes readable (keys), then the stores, and the faces last, so that
// nobody is answered before everything acknowledged earlier can be found.
func startNode(ctx context.Context, c config.Config, log *slog.Logger) (_ *node, err error) {
	n := &node{config: c, log: log, began: time.Now(), metrics: admin.NewMetrics()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	n.ending, n.fatal = context.WithCancelCause(ctx)
	if n.dir, err = datadir.Open(c.Data); err != nil {
		return nil, err
	}
	if err = n.openStores(); err != nil {
		return nil, err
	}
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	n.stopWork = stopWork
	n.work, working = errgroup.WithContext(working)
	n.background(working, "archive", n.archive.Run)
	n.background(working, "audit", n.trail.Run)
	if err = n.openFaces(working); err != nil {
		return nil, err
	}
	return n, nil
}

// background runs a task; when it fails the node must end.
func (n *node) background(ctx context.Context, name string, run func(context.Context) error) {
	n.work.Go(func() error {
		err := run(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%s: %w", name, err)
			n.fatal(err)
			return err
		}
		return nil
	})
}

// openStores opens everything under the data directory.
func (n *node) openStores() error {
	c := n.config
	self, err := identity.Open(vfs.Default, vfs.Default.PathJoin(c.Data, "keys"))
	if err != nil {
		return err
	}
	n.id = self.ID()
	if n.keys, err = keys.Open(vfs.Default, vfs.Default.PathJoin(c.Data, "keys"), self); err != nil {
		return err
	}
	if n.trail, err = openTrail(c, n.id, n.log); err != nil {
		return err
	}
	n.archive, err = archive.Open(archive.Options{
		FS: vfs.Default, Dir: c.Data, Node: n.id, Site: c.Site, Keys: n.keys, Log: n.log,
		StagingBytes: int64(c.Store.Staging), TableBytes: int64(c.Store.TableSize), Ballast: int64(c.Store.Ballast),
		Quiet: time.Duration(c.Store.Quiet), Gather: time.Duration(c.Store.Gather), Grace: time.Duration(c.Store.Grace),
		CacheBytes: int64(c.Store.Cache), ChunkBytes: int64(c.Store.Chunks),
		Fatal: n.die,
	})
	return err
}

// die ends the process after an error that no acknowledgement may follow: the
// restart proves what was really written (DESIGN §4, Errors). Stores are not
// closed: they could write.
func (n *node) die(err error) {
	n.log.Error("the node must end", "error", err)
	n.broken.Store(true)
	n.fatal(err)
	time.AfterFunc(closeTime, func() { os.Exit(3) })
}

// openFaces starts DIMSE and web.
func (n *node) openFaces(working context.Context) error {
	c := n.config
	find := engine.New(engine.Options{Catalog: n.archive.Catalog(), Instances: n.archive.Instances(), Issuer: c.Site})
	registry := ae.NewRegistry(c.Site, n.archive.Catalog(), n.archive.Journal())
	serverTLS, clientTLS, err := dicomTLS(c.DICOM)
	if err != nil {
		return err
	}
	association := assoc.Config{
		MaxPDU: uint32(c.DICOM.MaxPDU), Idle: time.Duration(c.DICOM.Idle), Log: n.log,
		UserInfo: assoc.UserInfo{
			ImplementationClassUID: dicom.ImplementationClassUID, ImplementationVersion: dicom.ImplementationVersionName,
		},
	}
	dimseMetrics, webMetrics := n.metrics.DIMSE(), n.metrics.Web()
	n.face = ae.New(ae.Options{
		Title: c.DICOM.AE, CheckCalled: c.DICOM.CheckCalled, OpenStore: c.DICOM.OpenStore, Limit: c.DICOM.MaxAssociations,
		Registry: registry, Archive: n.archive, Engine: find, Arrivals: n.archive.Journal(),
		Status: n.archive, Rows: n.archive.Rows("commitment"), ClientTLS: clientTLS, Config: association, Log: n.log,
		Audit: n.trail.association,
		Observe: func(operation string, status uint16, took time.Duration, bytes int64) {
			dimseMetrics.Observe(operation, int(status), took, bytes)
		},
	})
	n.background(working, "storage commitment", func(ctx context.Context) error { return n.face.Run(ctx, nil) })
	token := admin.NewToken()
	guard := admin.NewGuard(c.HTTP.Users, token, c.HTTP.Insecure || config.Loopback(c.HTTP.Listen) && len(c.HTTP.Users) == 0, c.HTTP.Hosts)
	dicomweb, err := web.New(n.archive, n.archive, find, web.Options{
		AE: c.DICOM.AE, Origins: c.HTTP.Origins, Login: guard, Audit: n.trail, Metric: webMetrics, Log: n.log,
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	for _, pattern := range dicomweb.Patterns() {
		mux.Handle(pattern, dicomweb)
	}
	mux.Handle("/", n.operators(guard, registry))
	n.faces = &errgroup.Group{}
	if err := n.listenWeb(mux); err != nil {
		return err
	}
	if err := n.listenDICOM(working, association, serverTLS); err != nil {
		return err
	}
	n.gauges()
	return n.dir.Announce(datadir.Node{
		PID: os.Getpid(), HTTP: n.baseURL, AE: c.DICOM.AE, DICOM: n.dicomAddr, Token: token,
	})
}

// operators is the handler of everything but DICOMweb.
func (n *node) operators(guard *admin.Guard, registry *ae.Registry) http.Handler {
	o := admin.Options{
		Guard: guard, Archive: n.archive, Registry: registry, Echo: n.face.Echo,
		Status: n.status, Protection: n.protection, Backup: n.backup,
		Ready:   func() error { return n.ending.Err() },
		Metrics: n.metrics.Handler(), Audit: n.trail.operator, Log: n.log,
	}
	if n.config.Admin.Profiles {
		profiles := http.NewServeMux()
		profiles.HandleFunc("/debug/pprof/", pprof.Index)
		profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
		profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
		o.Profiles = profiles
	}
	return admin.Handler(o)
}

func (n *node) listenWeb(handler http.Handler) error {
	c := n.config.HTTP
	if c.Listen == "" {
		return nil
	}
	var secure *tls.Config
	scheme := "http"
	if c.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
		if err != nil {
			return fault.New(fault.Invalid, "http.certificate: %w", err)
		}
		secure = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
		scheme = "https"
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fault.New(fault.Unavailable, "http.listen: %w", err)
	}
	n.baseURL = scheme + "://" + listener.Addr().String()
	n.requests = &gate{next: handler}
	n.http = web.NewServer(n.requests, web.ServerOptions{TLS: secure, Log: n.log})
	n.faces.Go(func() error {
		var err error
		if secure != nil {
			err = n.http.ServeTLS(listener, "", "")
		} else {
			err = n.http.Serve(listener)
		}
		return n.ended("web", err)
	})
	return nil
}

func (n *node) listenDICOM(ctx context.Context, association assoc.Config, secure *tls.Config) error {
	c := n.config.DICOM
	n.dimse = &scp.Server{Config: association, Admit: n.face, Refused: n.face.Refused, Limit: c.MaxAssociations}
	for _, port := range []struct {
		key, address string
		secure       *tls.Config
	}{{"dicom.listen", c.Listen, nil}, {"dicom.listen_tls", c.ListenTLS, secure}} {
		if port.address == "" {
			continue
		}
		listener, err := net.Listen("tcp", port.address)
		if err != nil {
			return fault.New(fault.Unavailable, "%s: %w", port.key, err)
		}
		if port.secure == nil {
			n.dicomAddr = listener.Addr().String()
		} else {
			listener = tls.NewListener(listener, port.secure)
		}
		n.faces.Go(func() error { return n.ended("dicom", n.dimse.Serve(ctx, listener)) })
	}
	return nil
}

// ended takes what a face's server returned.
func (n *node) ended(name string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, context.Canceled) {
		return nil
	}
	err = fmt.Errorf("%s: %w", name, err)
	n.fatal(err)
	return err
}

// dicomTLS reads the certificates of DICOM TLS: BCP 195, that is TLS 1.2 with
// ECDHE and AEAD, and 1.3 (PS3.15 B.12).
func dicomTLS(c config.DICOM) (server, client *tls.Config, err error) {
	if c.Certificate == "" {
		return nil, nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "dicom.certificate: %w", err)
	}
	suites := []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	server = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, CipherSuites: suites}
	client = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, CipherSuites: suites}
	if c.ClientCA == "" {
		return server, client, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, nil, fault.New(fault.Invalid, "dicom.client_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, nil, fault.New(fault.Invalid, "dicom.client_ca: no certificate in the file")
	}
	server.ClientCAs, server.ClientAuth = pool, tls.RequireAndVerifyClientCert
	client.RootCAs = pool
	return server, client, nil
}

// wait blocks until the node is told to end or cannot go on, and ends it.
func (n *node) wait() error {
	<-n.ending.Done()
	cause := context.Cause(n.ending)
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	if cause == nil {
		n.log.Info("shutting down")
	}
	return errors.Join(cause, n.stop())
}

// stop ends what was started, in reverse: faces first, so that nobody is
// acknowledged any more, then the background work, then the stores.
func (n *node) stop() error {
	var errs []error
	errs = append(errs, n.drain())
	if n.stopWork != nil {
		n.stopWork()
	}
	if n.faces != nil {
		errs = append(errs, n.slow("faces", n.faces.Wait))
	}
	if n.work != nil {
		errs = append(errs, n.slow("background work", n.work.Wait))
	}
	if n.archive != nil && !n.broken.Load() {
		errs = append(errs, n.slow("archive", n.archive.Close))
	}
	if n.trail != nil {
		errs = append(errs, n.slow("audit", n.trail.Close))
	}
	if n.keys != nil {
		errs = append(errs, n.keys.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// drain lets what is under way on both faces end, and ends by force what has not
// after drainTime. That is no failure: a sender that is cut off in the middle of
// an instance got no success for it, and sends it again.
func (n *node) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var faces errgroup.Group
	if n.dimse != nil {
		faces.Go(func() error {
			return n.slow("dicom", func() error { return n.forced("dicom", n.dimse.Shutdown(ctx)) })
		})
	}
	if n.http != nil {
		faces.Go(func() error {
			return n.slow("web", func() error {
				err := n.http.Shutdown(ctx)
				if err == nil {
					return nil
				}
				last, cancel := context.WithTimeout(context.Background(), closeTime)
				defer cancel()
				return errors.Join(n.forced("web", err), n.http.Close(), n.requests.close(last))
			})
		})
	}
	return faces.Wait()
}

// forced logs that a face was ended by force at the end of its time.
func (n *node) forced(face string, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	n.log.Warn("clients that did not end were cut off", "face", face)
	return nil
}

// slow logs by name what takes long to stop.
func (n *node) slow(name string, stop func() error) error {
	timer := time.AfterFunc(closeTime, func() { n.log.Warn("still stopping", "part", name) })
	defer timer.Stop()
	return stop()
}
