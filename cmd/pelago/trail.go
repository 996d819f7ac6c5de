package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/ae"
	"pelago/node/audit"
	"pelago/node/config"
	"pelago/node/web"
)

// trail turns what the faces did into audit messages (PS3.15 A.5) and keeps them.
type trail struct {
	log    *slog.Logger
	events *audit.Log
	syslog *audit.Syslog // nil: events are not sent anywhere
	self   audit.Peer
	ctx    context.Context // ends when nothing is recorded any more
	cancel context.CancelFunc
}

func openTrail(c config.Config, node string, log *slog.Logger) (*trail, error) {
	t := &trail{log: log, self: audit.Peer{AE: c.DICOM.AE}}
	if host, _, err := net.SplitHostPort(c.DICOM.Listen); err == nil {
		t.self.Address = host
	}
	var err error
	t.events, err = audit.Open(audit.Options{
		FS: vfs.Default, Dir: filepath.Join(c.Data, "audit"), Keep: time.Duration(c.Audit.Keep), Log: log,
		Source: audit.Source{Site: c.Site, ID: node},
	})
	if err != nil {
		return nil, err
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if c.Audit.Syslog == "" {
		return t, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.Audit.CA != "" {
		pem, err := os.ReadFile(c.Audit.CA)
		if err != nil {
			return nil, fault.New(fault.Invalid, "audit.ca: %w", err)
		}
		secure.RootCAs = x509.NewCertPool()
		if !secure.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "audit.ca: no certificate in the file")
		}
	}
	t.syslog, err = audit.NewSyslog(t.events, audit.SyslogOptions{Name: "syslog", Address: c.Audit.Syslog, TLS: secure, Log: log})
	return t, err
}

// Run keeps and sends events until ctx ends.
func (t *trail) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.events.Run(ctx) })
	if t.syslog != nil {
		group.Go(func() error { return t.syslog.Run(ctx) })
	}
	t.record(audit.Started(t.self, audit.Peer{User: "operating system"}))
	return group.Wait()
}

// Close ends the trail; Run must have returned.
func (t *trail) Close() error {
	t.cancel()
	return t.events.Close()
}

// record waits only while the queue is full.
func (t *trail) record(e audit.Event) {
	if err := t.events.Record(t.ctx, e); err != nil && !errors.Is(err, context.Canceled) {
		t.log.Error("an audit event was not recorded", "kind", e.ID.Meaning, "error", err)
	}
}

func outcomeOf(failed bool) audit.Outcome {
	if failed {
		return audit.Minor
	}
	return audit.Success
}

func classes(uids []string, instances int) []audit.Class {
	all := make([]audit.Class, len(uids))
	for i, uid := range uids {
		all[i] = audit.Class{UID: uid}
	}
	if len(all) == 1 {
		all[0].Count = instances
	}
	return all
}

// association records what the DIMSE face did.
func (t *trail) association(e ae.Event) {
	peer := audit.Peer{AE: e.AE, Address: e.Remote}
	what := audit.Subject{
		Patient: audit.Patient{ID: e.Patient},
		Studies: []audit.Study{{UID: e.Study, Classes: classes(e.Classes, e.Instances)}},
	}
	switch e.Action {
	case ae.Associate:
		why := ""
		if e.Failed {
			why = "refused"
		}
		t.record(audit.Associated(peer, t.self, outcomeOf(e.Failed), why))
	case ae.Stored:
		t.record(audit.Transferred(audit.Create, peer, t.self, audit.Peer{}, what, outcomeOf(e.Failed)))
	case ae.Sent:
		destination, third := peer, audit.Peer{}
		if e.Destination != "" {
			destination, third = audit.Peer{AE: e.Destination}, peer
		}
		t.record(audit.Transferred(audit.Read, t.self, destination, third, what, outcomeOf(e.Failed)))
	case ae.Queried:
		t.record(audit.Queried(peer, t.self, e.Class, dict.ExplicitLittleEndian, e.Query, outcomeOf(e.Failed)))
	case ae.Committed:
		t.record(audit.Accessed(peer, audit.Read, audit.Subject{}, outcomeOf(e.Failed)))
	}
}

// Audit implements [web.Auditor].
func (t *trail) Audit(_ context.Context, e web.Event) {
	peer := audit.Peer{User: e.User, Address: e.Remote}
	failed := e.Status >= 400 || e.Status == 0 || e.Failed > 0
	what := audit.Subject{Studies: []audit.Study{{UID: e.Study}}}
	switch e.Action {
	case web.ActionSearch:
		t.record(audit.Searched(peer, t.self, e.Query, outcomeOf(failed)))
	case web.ActionStore:
		t.record(audit.Transferred(audit.Create, peer, t.self, audit.Peer{}, what, outcomeOf(failed)))
	case web.ActionRetrieve:
		t.record(audit.Transferred(audit.Read, t.self, peer, audit.Peer{}, what, outcomeOf(failed)))
	case web.ActionMetadata, web.ActionFrames, web.ActionBulk, web.ActionRendered:
		t.record(audit.Accessed(peer, audit.Read, what, outcomeOf(failed)))
	default:
		if e.Kind == fault.Denied {
			t.record(audit.LoggedIn(peer, t.self, audit.Minor, "refused"))
		}
	}
}

// operator records what was changed through the API.
func (t *trail) operator(user, remote, action, object string, err error) {
	peer := audit.Peer{User: user, Address: remote}
	switch action {
	case "delete":
		t.record(audit.Deleted(peer, audit.Subject{Studies: []audit.Study{{UID: object}}}, outcomeOf(err != nil)))
	case "ae-put", "ae-delete":
		t.record(audit.Alert(audit.NetworkConfiguration(), peer, t.self, outcomeOf(err != nil), object, action))
	default:
		t.record(audit.Alert(audit.RestrictedFunction(), peer, t.self, outcomeOf(err != nil), object, action))
	}
}
