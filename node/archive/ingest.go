package archive

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
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
	if a.o.Takes != nil {
		if err := a.o.Takes(); err != nil {
			return Stored{}, err
		}
	}
	syntax, err := storedSyntax(in.Syntax)
	if err != nil {
		return Stored{}, err
	}
	if err := a.awaitRoom(ctx); err != nil {
		return Stored{}, err
	}
	defer a.taking.begin()()
	arrival, err := a.staging.Begin()
	if err != nil {
		return Stored{}, err
	}
	defer arrival.Abort()
	hash := a.hashers.Get().(*blake3.Hasher)
	defer a.hashers.Put(hash)
	hash.Reset()
	tee := tee{body: in.Body, arrival: arrival, hash: hash}
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
	same, err := a.judge(ctx, record)
	if err != nil {
		return Stored{}, err
	}
	patient := header.Dataset.String(dict.PatientID)
	if same != nil {
		stored, err := a.sentAgain(ctx, same)
		stored.Patient = patient
		return stored, err
	}
	if err := a.commit(ctx, arrival, record, header); err != nil {
		return Stored{}, err
	}
	stored := Stored{Ref: version{record}.ref()}
	switch {
	case record.State != archivepb.State_CANONICAL:
		stored, err = a.settleVersion(ctx, record)
	case a.covered(record):
		// Deleted between our look and our commit: it has come late.
		stored.Outcome, stored.Deleted = Quarantined, true
		err = a.setState(record.Number, archivepb.State_QUARANTINED)
	}
	stored.Patient = patient
	return stored, err
}

// sentAgain answers an arrival whose very bytes are held. One that is
// quarantined still is, unless a crash or an error cut its comparison short and
// comparing now tells otherwise.
func (a *Archive) sentAgain(ctx context.Context, same *version) (Stored, error) {
	if same.State == archivepb.State_QUARANTINED {
		return a.settleVersion(ctx, same.Instance)
	}
	return Stored{Ref: same.ref(), Outcome: Same}, nil
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
		Charset:   in.Sender.Charset,
	}
	var err error
	if r.Issuer, err = a.issuer(ds, in.Sender.Issuer); err != nil {
		return nil, err
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

// issuer resolves the issuer of the Patient ID (DESIGN §10): a universal one as it
// is, others as what they stand for at this site.
func (a *Archive) issuer(ds *dicom.Dataset, sender string) (string, error) {
	if qualifiers := ds.Get(dict.IssuerOfPatientIDQualifiersSequence); qualifiers != nil && len(qualifiers.Items) > 0 {
		if universal := qualifiers.Items[0].String(dict.UniversalEntityID); universal != "" {
			return universal, nil
		}
	}
	return a.o.Issuer(cmp.Or(ds.String(dict.IssuerOfPatientID), sender, a.o.Site))
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

// commit makes the arrival durable and writes its rows.
func (a *Archive) commit(ctx context.Context, arrival *staging.Arrival, r *archivepb.Instance, header *dicom.Header) error {
	r.Number = a.number.Add(1)
	durable, err := header.AppendBinary(nil)
	if err != nil {
		return err
	}
	whole := wholeHeader(durable)
	at, err := arrival.Commit(ctx, marshal(&archivepb.Arrival{Instance: r, HeaderRow: whole}))
	if err != nil {
		return err
	}
	if r.State == archivepb.State_CANONICAL && r.Against != 0 {
		a.changing.Lock() // its rows are changed, and its pack left
		defer a.changing.Unlock()
	}
	if err := a.commitRows(r, durable, whole, stagedLocation(at)); err != nil {
		return err
	}
	raise(&a.visible, r.Number)
	if r.State == archivepb.State_CANONICAL && a.journal.Dirty(r.Number, r.Study, r.Series) {
		a.said.put(r.Number, says(r, header))
	}
	return nil
}

// commitRows writes all rows of an arrival. Unsynced: the commit frame is what
// was promised, and replay writes the rows again if a crash takes them. Batches
// survive a crash in the order of their commits, so no header row does without
// the one that it refers to.
func (a *Archive) commitRows(r *archivepb.Instance, header, whole []byte, at *archivepb.Location) error {
	batch := a.store.NewBatch()
	defer batch.Close()
	if err := errors.Join(a.replaceLost(batch, r), putInstance(batch, r, at)); err != nil {
		return err
	}
	a.headers.choosing.RLock()
	defer a.headers.choosing.RUnlock()
	like, err := a.putHeader(batch, r, header, whole)
	if err != nil {
		return err
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		a.die(err)
		return fault.New(fault.Unavailable, "store: %w", err)
	}
	if !like {
		a.offerHeader(r, header)
	}
	return nil
}

// raise sets a number that only grows.
func raise(n *atomic.Uint64, to uint64) {
	for {
		now := n.Load()
		if now >= to || n.CompareAndSwap(now, to) {
			return
		}
	}
}

// putInstance writes the rows of an instance that rests in staging, but for its
// header row.
func putInstance(b *pebble.Batch, r *archivepb.Instance, at *archivepb.Location) error {
	rows := []struct{ key, value []byte }{
		{keyNumber(rowInstance, r.Number), marshal(r)},
		{keyNumber(rowLocation, r.Number), marshal(at)},
		{keyQueue(r.Study, r.Series, r.Number), queueValue(r.Bytes, r.Arrived)},
	}
	for _, row := range rows {
		if err := b.Set(row.key, row.value, nil); err != nil {
			return err
		}
	}
	return putState(b, r)
}
