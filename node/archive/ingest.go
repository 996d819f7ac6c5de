package archive

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
	"pelago/node/staging"
)

// maxUID is the longest UID that is taken (PS3.5 §9.1; DESIGN §9).
const maxUID = 64

// Store implements [Writes]. Bytes go to staging as they come, while the header
// is read from the same stream; the only wait is for the shared fdatasync.
func (a *Archive) Store(ctx context.Context, in Incoming) (Stored, error) {
	stored, err := a.take(ctx, in)
	if err != nil {
		a.stats.Refused.Add(1)
		return stored, err
	}
	switch stored.Outcome {
	case New:
		a.stats.Stored.Add(1)
	case Same:
		a.stats.Same.Add(1)
	case Rendition:
		a.stats.Renditions.Add(1)
	case Quarantined:
		a.stats.Quarantined.Add(1)
	}
	a.stats.BytesIn.Add(uint64(stored.Bytes))
	return stored, nil
}

func (a *Archive) take(ctx context.Context, in Incoming) (Stored, error) {
	syntax, err := storedSyntax(in.Syntax)
	if err != nil {
		return Stored{}, err
	}
	arrival, err := a.staging.Begin()
	if err != nil {
		return Stored{}, err
	}
	defer arrival.Abort()
	tee := tee{body: in.Body, arrival: arrival, hash: blake3.New()}
	header, err := dicom.ReadHeader(&tee, syntax, a.o.Limits)
	if tee.err != nil { // the sender's or the disk's error, not the data set's
		return Stored{}, tee.err
	}
	if err != nil {
		return Stored{}, err
	}
	record, err := a.identify(in, header)
	if err != nil {
		return Stored{}, err
	}
	record.Bytes = tee.bytes
	record.Hash = tee.hash.Sum(nil)

	release, err := a.arrival.enter(ctx, record.Sop)
	if err != nil {
		return Stored{}, err
	}
	defer release()
	same, err := a.judge(record)
	if err != nil {
		return Stored{}, err
	}
	if same != nil {
		return Stored{Ref: same.ref(), Outcome: Same}, nil
	}
	if err := a.commit(ctx, arrival, record, header); err != nil {
		return Stored{}, err
	}
	return a.settleVersion(ctx, record, header)
}

// storedSyntax checks the transfer syntax of an arrival (DESIGN §9, What is an
// instance).
func storedSyntax(uid string) (dict.TransferSyntax, error) {
	if uid == "" {
		return dict.TransferSyntax{}, fault.New(fault.Invalid, "no transfer syntax")
	}
	syntax, _ := dict.Syntax(uid)
	if syntax.Refused {
		return syntax, fault.New(fault.Unsupported, "transfer syntax %s carries no pixels of its own", uid)
	}
	return syntax, nil
}

// tee hands the sender's bytes to staging and the hash as the header reader
// asks for them.
type tee struct {
	body    io.Reader
	arrival *staging.Arrival
	hash    *blake3.Hasher
	bytes   int64
	err     error // what ended the stream, other than its end
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	if n > 0 {
		if _, werr := t.arrival.Write(p[:n]); werr != nil {
			t.err = werr
			return 0, werr
		}
		t.hash.Write(p[:n]) //nolint:errcheck // a hash never fails
		t.bytes += int64(n)
	}
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// identify reads from the header what names the instance and checks it against
// the command. Group 0002 never decides: it is not part of the data set.
func (a *Archive) identify(in Incoming, header *dicom.Header) (*archivepb.Instance, error) {
	ds := header.Dataset
	r := &archivepb.Instance{
		Version:   recordVersion,
		Study:     ds.String(dict.StudyInstanceUID),
		Series:    ds.String(dict.SeriesInstanceUID),
		Sop:       ds.String(dict.SOPInstanceUID),
		Class:     ds.String(dict.SOPClassUID),
		Syntax:    in.Syntax,
		Arrived:   time.Now().UnixMicro(),
		CallingAe: in.Sender.CallingAE,
		Remote:    in.Sender.Remote,
		User:      in.Sender.User,
		Issuer:    a.issuer(ds, in.Sender.Issuer),
		Charset:   in.Sender.Charset,
	}
	if r.Sop == "" || r.Class == "" {
		return nil, fault.New(fault.Mismatch, "the data set has no SOP Class UID or no SOP Instance UID")
	}
	if in.Class != "" && in.Class != r.Class || in.Instance != "" && in.Instance != r.Sop {
		return nil, fault.New(fault.Mismatch, "the data set's UIDs differ from the command's")
	}
	if in.Study != "" && in.Study != r.Study {
		return nil, fault.New(fault.Mismatch, "the data set belongs to another study than the request's")
	}
	if dict.IsNonPatient(r.Class) && (r.Study == "" || r.Series == "") {
		r.Reserved = true
		r.Study, r.Series = ReservedStudy, reservedSeries(r.Class)
	}
	if r.Study == "" || r.Series == "" {
		return nil, fault.New(fault.Mismatch, "the data set has no Study or no Series Instance UID")
	}
	for _, uid := range []string{r.Study, r.Series, r.Sop, r.Class} {
		if !plainUID(uid) {
			return nil, fault.New(fault.Mismatch, "a UID of %d characters, or with unprintable ones", len(uid))
		}
	}
	return r, nil
}

// plainUID takes what real senders use as UIDs: up to 64 printable ASCII
// characters, whatever they are.
func plainUID(uid string) bool {
	if len(uid) > maxUID {
		return false
	}
	for i := range len(uid) {
		if uid[i] <= ' ' || uid[i] > '~' {
			return false
		}
	}
	return true
}

// issuer resolves the issuer of the Patient ID (DESIGN §10).
func (a *Archive) issuer(ds *dicom.Dataset, sender string) string {
	if qualifiers := ds.Get(dict.IssuerOfPatientIDQualifiersSequence); qualifiers != nil && len(qualifiers.Items) > 0 {
		if universal := qualifiers.Items[0].String(dict.UniversalEntityID); universal != "" {
			return universal
		}
	}
	if issuer := ds.String(dict.IssuerOfPatientID); issuer != "" {
		return issuer
	}
	if sender != "" {
		return sender
	}
	return a.o.Site
}

// inflight lets one arrival of a SOP Instance UID at a time decide what it is,
// so that of two equal ones the second waits until the first is durable.
type inflight struct {
	mu      sync.Mutex
	waiting map[string]chan struct{}
}

func (f *inflight) enter(ctx context.Context, sop string) (func(), error) {
	for {
		f.mu.Lock()
		busy, ok := f.waiting[sop]
		if !ok {
			mine := make(chan struct{})
			f.waiting[sop] = mine
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				delete(f.waiting, sop)
				f.mu.Unlock()
				close(mine)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// judge compares an arrival with what is stored under its UID: it returns the
// stored instance if they are the same bytes, and otherwise sets the state
// under which the arrival is to be committed.
func (a *Archive) judge(r *archivepb.Instance) (*version, error) {
	versions, err := a.versions(r.Sop)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if !bytes.Equal(v.Hash, r.Hash) || v.Syntax != r.Syntax {
			continue
		}
		if v.State == archivepb.State_CANONICAL && !a.covered(v.Instance) {
			return &v, nil
		}
		if v.State == archivepb.State_QUARANTINED {
			return &v, nil // it waits for an operator already
		}
	}
	if a.covered(r) {
		r.State = archivepb.State_QUARANTINED
		return nil, nil
	}
	for _, v := range versions {
		if v.State == archivepb.State_CANONICAL {
			r.State = archivepb.State_QUARANTINED
			r.Against = v.Number
			break
		}
	}
	return nil, nil
}

// covered reports whether a tombstone names the instance, its series or study.
func (a *Archive) covered(r *archivepb.Instance) bool {
	_, deleted := a.catalog.Deleted(r.Study, r.Series, r.Sop)
	return deleted
}

// commit makes the arrival durable and writes its rows.
func (a *Archive) commit(ctx context.Context, arrival *staging.Arrival, r *archivepb.Instance, header *dicom.Header) error {
	r.Number = a.number.Add(1)
	durable, err := header.AppendBinary(nil)
	if err != nil {
		return err
	}
	at, err := arrival.Commit(ctx, marshal(&archivepb.Arrival{Instance: r, Header: durable}))
	if err != nil {
		return err
	}
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := putInstance(batch, r, durable, stagedLocation(at)); err != nil {
		return err
	}
	// Unsynced: the commit frame is what was promised, and replay writes the
	// rows again if a crash takes them.
	if err := batch.Commit(pebble.NoSync); err != nil {
		a.die(err)
		return fault.New(fault.Unavailable, "store: %w", err)
	}
	if r.State == archivepb.State_CANONICAL {
		a.journal.Dirty(r.Number, r.Study, r.Series)
	}
	return nil
}

// putInstance writes all rows of an instance that rests in staging.
func putInstance(b *pebble.Batch, r *archivepb.Instance, header []byte, at *archivepb.Location) error {
	rows := []struct{ key, value []byte }{
		{keyNumber(rowInstance, r.Number), marshal(r)},
		{keyNumber(rowHeader, r.Number), header},
		{keyNumber(rowLocation, r.Number), marshal(at)},
		{keyQueue(r.Study, r.Series, r.Number), nil},
	}
	for _, row := range rows {
		if err := b.Set(row.key, row.value, nil); err != nil {
			return err
		}
	}
	return putState(b, r)
}

// putState writes the rows by which an instance is found, as its state wants.
func putState(b *pebble.Batch, r *archivepb.Instance) error {
	if err := b.Set(keyUID(r.Sop, r.Number), []byte{byte(r.State)}, nil); err != nil {
		return err
	}
	switch r.State {
	case archivepb.State_CANONICAL:
		l := listing{number: r.Number, bytes: r.Bytes, class: r.Class, syntax: r.Syntax}
		if err := b.Set(keySeries(r.Study, r.Series, r.Sop), l.append(nil), nil); err != nil {
			return err
		}
		return b.Set(keyParent(r.Series, r.Study), nil, nil)
	case archivepb.State_QUARANTINED:
		return b.Set(keyNumber(rowReview, r.Number), nil, nil)
	}
	return nil
}

// replayer writes the rows of replayed arrivals again where they are missing.
type replayer struct {
	a       *Archive
	release []staging.Placed
	rows    int
}

// arrival takes one arrival from staging's replay.
func (p *replayer) arrival(record []byte, at staging.Placed) error {
	var arrival archivepb.Arrival
	if err := unmarshal(record, &arrival); err != nil {
		return err
	}
	r := arrival.Instance
	if r == nil {
		return fault.New(fault.Corrupt, "staging: a commit record without an instance")
	}
	if r.Number > p.a.number.Load() {
		p.a.number.Store(r.Number)
	}
	known, ok, err := p.a.instance(r.Number)
	if err != nil {
		return err
	}
	if !ok {
		p.rows++
		batch := p.a.store.NewBatch()
		defer batch.Close()
		if err := putInstance(batch, r, arrival.Header, stagedLocation(at)); err != nil {
			return err
		}
		return batch.Commit(pebble.NoSync)
	}
	if !bytes.Equal(known.Hash, r.Hash) || known.Sop != r.Sop {
		return fault.New(fault.Corrupt, "staging: the arrival numbered %d is not the one that store/ knows", r.Number)
	}
	staged, err := p.a.staged(known)
	if err == nil && !staged {
		p.release = append(p.release, at)
	}
	return err
}

// finish syncs what was written and lets go of what rests elsewhere.
func (p *replayer) finish() error {
	if err := p.a.sync(); err != nil {
		return err
	}
	if p.rows > 0 {
		p.a.log.Info("staging replayed", "instances", p.rows)
	}
	for _, at := range p.release {
		if err := p.a.staging.Release(at); err != nil {
			return err
		}
	}
	return nil
}

// staged reports whether an instance's bytes are still needed in staging.
func (a *Archive) staged(r *archivepb.Instance) (bool, error) {
	if r.State == archivepb.State_DROPPED {
		return false, nil
	}
	location, err := a.location(r.Number)
	if fault.Is(err, fault.NotFound) {
		return false, nil // purged
	}
	return len(location.GetPack()) == 0, err
}

// sync makes everything written to store/ so far durable.
func (a *Archive) sync() error {
	return a.store.LogData(nil, pebble.Sync)
}
