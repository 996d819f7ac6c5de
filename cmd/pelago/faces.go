package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/scp"
	"pelago/node/admin"
	"pelago/node/ae"
	"pelago/node/config"
	"pelago/node/reconcile"
	"pelago/node/web"
)

// faces is what the ports serve.
type faces struct {
	association assoc.Config
	dicomTLS    *tls.Config // nil: no DICOM TLS
	handler     http.Handler
	webTLS      *tls.Config // nil: plain HTTP
	pin         string      // SHA-256 of the web port's certificate, hexadecimal
	token       string      // of administration
}

// makeFaces makes the DIMSE and the web face; nothing listens yet.
func (n *node) makeFaces() (*faces, error) {
	c := n.config
	f := &faces{token: admin.NewToken(), association: assoc.Config{
		MaxPDU: uint32(c.DICOM.MaxPDU), Idle: time.Duration(c.DICOM.Idle), Log: n.log,
		UserInfo: assoc.UserInfo{
			ImplementationClassUID: dicom.ImplementationClassUID, ImplementationVersion: dicom.ImplementationVersionName,
		},
	}}
	var clientTLS *tls.Config
	var err error
	if f.dicomTLS, clientTLS, err = dicomTLS(c.DICOM); err != nil {
		return nil, err
	}
	if f.webTLS, f.pin, err = webTLS(c.HTTP); err != nil {
		return nil, err
	}
	find := n.makeEngine()
	registry := ae.NewRegistry(c.Site, n.catalog, n.network.group)
	dimseRequests := requests{n.metrics.DIMSE(), n.log}
	n.face = ae.New(ae.Options{
		Title: c.DICOM.AE, CheckCalled: c.DICOM.CheckCalled, OpenStore: c.DICOM.OpenStore, Limit: c.DICOM.MaxAssociations,
		Registry: registry, Archive: n.distance.reach, Engine: find, Arrivals: n.archive.Journal(),
		Takes: n.network.takes, Sends: n.network.sends, Status: n.protect, Changed: n.protect.Changed, Rows: n.archive.Rows("commitment"), Deadline: time.Duration(c.DICOM.CommitDeadline),
		Node: n.id, Peers: holders{n.network}, At: n.distance.reach.SelectAt,
		ClientTLS: clientTLS, Config: f.association, Log: n.log, Audit: n.trail.association,
		Observe: func(operation string, status uint16, took time.Duration, bytes int64) {
			dimseRequests.Observe(operation, int(status), took, bytes)
		},
	})
	n.network.peers.Handle("/archive/move", n.network.readers(n.face.Forwarded(callerOf)))
	guard, err := admin.NewGuard(c.HTTP.Users, f.token, hostsOf(c.HTTP))
	if err != nil {
		return nil, err
	}
	dicomweb, err := web.New(n.distance.reach, n.archive, find, web.Options{
		AE: c.DICOM.AE, Origins: c.HTTP.Origins, Login: guard, Audit: n.trail, Metric: requests{n.metrics.Web(), n.log}, Log: n.log,
		Node: n.id, After: n.after,
		Arrivals: n.archive.Journal(), Takes: n.network.takes, TempDir: c.Data, // not the system's, which may be memory
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, pattern := range dicomweb.Patterns() {
		mux.Handle(pattern, dicomweb)
	}
	mux.Handle("/", n.operators(guard, registry))
	f.handler = mux
	return f, nil
}

// hostsOf lists the names under which the web port may be reached, besides
// loopback's own. A port that other machines reach anyhow has any name: there
// is nothing that a page in somebody's browser could get at only through it.
func hostsOf(c config.HTTP) []string {
	if !config.Loopback(c.Listen) {
		return []string{"*"}
	}
	return c.Hosts
}

// operators is the handler of everything but DICOMweb.
func (n *node) operators(guard *admin.Guard, registry *ae.Registry) http.Handler {
	o := admin.Options{
		Guard: guard, Archive: verified{n.archive, n.distance.copies, n.shards.held}, Registry: registry, Patients: n.patients, Site: n.config.Site,
		Holds:   n.holds(),
		Between: func() ([]reconcile.Conflict, error) { return reconcile.Conflicts(n.catalog) }, Echo: n.face.Echo,
		Status: n.status, Network: operated{n}, Protection: n.protection, Backup: n.backup,
		Ready:   n.ready,
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

// listen opens the ports, the web's last: it tells of the others.
func (n *node) listen(f *faces) error {
	ctx, cut := context.WithCancel(context.Background())
	n.cut = cut
	if err := n.listenDICOM(ctx, f); err != nil {
		return err
	}
	return n.listenWeb(f)
}

func (n *node) listenWeb(f *faces) error {
	address := n.config.HTTP.Listen
	if address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fault.New(fault.Unavailable, "http.listen: %w", err)
	}
	n.requests = &gate{next: f.handler}
	n.http = web.NewServer(n.requests, web.ServerOptions{TLS: f.webTLS, Log: n.log})
	n.baseURL = "http://" + listener.Addr().String()
	serve := func() error { return n.http.Serve(listener) }
	if f.webTLS != nil {
		n.baseURL = "https://" + listener.Addr().String()
		serve = func() error { return n.http.ServeTLS(listener, "", "") }
	}
	n.faces.Go(func() error { return n.ended("web", serve()) })
	return nil
}

func (n *node) listenDICOM(ctx context.Context, f *faces) error {
	c := n.config.DICOM
	n.dimse = &scp.Server{Config: f.association, Admit: n.face, Refused: n.face.Refused, Limit: c.MaxAssociations}
	for _, port := range []struct {
		key, address string
		secure       *tls.Config
	}{{"dicom.listen", c.Listen, nil}, {"dicom.listen_tls", c.ListenTLS, f.dicomTLS}} {
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
			n.dicomTLSAddr = listener.Addr().String()
			listener = tls.NewListener(listener, port.secure)
		}
		n.faces.Go(func() error { return n.ended("dicom", n.dimse.Serve(ctx, listener)) })
	}
	return nil
}

// webTLS reads the certificate of the web port, if there is one. pin lets
// commands on this machine know it again, whatever names it is made out for.
func webTLS(c config.HTTP) (secure *tls.Config, pin string, err error) {
	if c.Certificate == "" {
		return nil, "", nil
	}
	pair, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "http.certificate: %w", err)
	}
	sum := sha256.Sum256(pair.Certificate[0])
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, hex.EncodeToString(sum[:]), nil
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

// requests observes the requests of a face: for the metrics, and one by one in
// the log of those who want to know every one.
type requests struct {
	admin.Face
	log *slog.Logger
}

// Observe is as [admin.Face.Observe].
func (r requests) Observe(operation string, status int, took time.Duration, bytes int64) {
	r.Face.Observe(operation, status, took, bytes)
	r.log.Debug("request", "operation", operation, "status", status, "took", took, "bytes", bytes)
}
