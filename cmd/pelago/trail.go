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

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/admin"
	"pelago/node/ae"
	"pelago/node/audit"
	"pelago/node/config"
	"pelago/node/web"
	"pelago/node/work"
)

// trail turns what the faces did into audit messages (PS3.15 A.5) and keeps them.
type trail struct {
	log    *slog.Logger
	events *audit.Log
	syslog *audit.Syslog // nil: events are not sent anywhere
	self   audit.Peer
	// patientOf names a study's patient.
	patientOf func(study string) audit.Patient
	ctx       context.Context // ends when nothing is recorded any more
	cancel    context.CancelFunc
}

func openTrail(c config.Config, node string, log *slog.Logger) (*trail, error) {
	t := &trail{log: log, self: audit.Peer{AE: c.DICOM.AE}, patientOf: func(string) audit.Patient { return audit.Patient{} }}
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
	for _, damage := range t.events.Damage() {
		log.Error("the audit trail is damaged; what is left is kept", "damage", damage)
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if c.Audit.Syslog == "" {
		return t, nil
	}
	secure, err := auditTLS(c.Audit)
	if err != nil {
		return nil, err
	}
	t.syslog, err = audit.NewSyslog(t.events, audit.SyslogOptions{Name: "syslog", Address: c.Audit.Syslog, TLS: secure, Log: log})
	return t, err
}

// auditTLS is how the collector is checked.
func auditTLS(c config.Audit) (*tls.Config, error) {
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA == "" {
		return secure, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fault.New(fault.Invalid, "audit.ca: %w", err)
	}
	secure.RootCAs = x509.NewCertPool()
	if !secure.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fault.New(fault.Invalid, "audit.ca: no certificate in the file")
	}
	return secure, nil
}

// tasks keep events and send them.
func (t *trail) tasks() []work.Task {
	all := []work.Task{{Name: "audit", Run: func(ctx context.Context, _ *work.Progress) error { return t.events.Run(ctx) }}}
	if t.syslog != nil {
		all = append(all, work.Task{
			Name: "audit_syslog", Restart: &work.Restart{},
			Run: func(ctx context.Context, p *work.Progress) error { return t.syslog.Run(ctx) },
		})
	}
	return all
}

// system is who starts and ends a node: whoever runs the process.
var system = audit.Peer{User: "operating system"}

// started and stopped record the node's life.
func (t *trail) started() { t.record(audit.Started(t.self, system)) }
func (t *trail) stopped() { t.record(audit.Stopped(t.self, system)) }

// Close ends the trail; its tasks must have ended.
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
		t.record(audit.Associated(peer, t.self, outcomeOf(e.Failed), e.Why))
	case ae.Stored:
		t.record(audit.Transferred(audit.Create, peer, t.self, audit.Peer{}, what, outcomeOf(e.Failed)))
	case ae.Sent:
		destination, third := peer, audit.Peer{}
		if e.Destination != "" {
			destination, third = audit.Peer{AE: e.Destination}, peer
		}
		t.record(audit.Transferred(audit.Read, t.self, destination, third, what, outcomeOf(e.Failed)))
	case ae.Queried, ae.Retrieved:
		event := audit.Queried(peer, t.self, e.Class, dict.ExplicitLittleEndian, e.Query, outcomeOf(e.Failed))
		event.OutcomeText = e.Why
		t.record(event)
	case ae.Committed:
		event := audit.Accessed(peer, audit.Read, audit.Subject{}, outcomeOf(e.Failed))
		event.OutcomeText = e.Why
		t.record(event)
	}
}

// Audit implements [web.Auditor].
func (t *trail) Audit(_ context.Context, e web.Event) {
	peer := audit.Peer{User: e.User, Address: hostOf(e.Remote)}
	failed := e.Status >= 400 || e.Status == 0 || e.Failed > 0
	var what audit.Subject
	if e.Study != "" {
		what = audit.Subject{Patient: t.patientOf(e.Study), Studies: []audit.Study{{UID: e.Study}}}
	}
	switch e.Action {
	case web.ActionSearch:
		t.record(audit.Searched(peer, t.self, e.Query, outcomeOf(failed)))
	case web.ActionStore:
		for _, s := range e.Stored {
			t.record(audit.Transferred(audit.Create, peer, t.self, audit.Peer{}, audit.Subject{
				Patient: audit.Patient{ID: s.Patient},
				Studies: []audit.Study{{UID: s.Study, Classes: classes(s.Classes, s.Instances)}},
			}, audit.Success))
		}
		if failed || len(e.Stored) == 0 {
			t.record(audit.Transferred(audit.Create, peer, t.self, audit.Peer{}, what, outcomeOf(failed)))
		}
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

// hostOf is the address of a connection's end without its port: a network access
// point (PS3.15 A.5.2.2) is a machine.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

// operator records what was done, or refused, through the API.
func (t *trail) operator(e admin.Event) {
	peer := audit.Peer{User: e.User, Address: e.Remote}
	outcome, why := audit.Success, e.Action
	if e.Err != nil {
		outcome, why = audit.Minor, e.Action+": "+e.Err.Error()
	}
	switch {
	case fault.Is(e.Err, fault.Denied):
		t.record(audit.LoggedIn(peer, t.self, outcome, why+": "+e.Object))
	case e.Action == "delete" && e.Study != "":
		event := audit.Deleted(peer, audit.Subject{Studies: []audit.Study{{UID: e.Study}}}, outcome)
		event.OutcomeText = why + " " + e.Object
		t.record(event)
	case e.Action == "ae-put" || e.Action == "ae-delete":
		t.record(audit.Alert(audit.NetworkConfiguration(), peer, t.self, outcome, e.Object, why))
	default:
		t.record(audit.Alert(audit.RestrictedFunction(), peer, t.self, outcome, e.Object, why))
	}
}
