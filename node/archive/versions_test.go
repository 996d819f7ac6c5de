package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/archive/archivepb"
)

const rleLossless = "1.2.840.10008.1.2.5"

// encodeRLE returns an image's data set in RLE Lossless (PS3.5 Annex G), its
// segments as literal runs.
func (m image) encodeRLE(t testing.TB) []byte {
	t.Helper()
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	plain := m.encode(t)
	h, err := dicom.ReadHeader(bytes.NewReader(plain), explicit, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	pixels := h.Dataset.Get(dict.PixelData)
	samples := pixels.Value
	if pixels.Cut != nil {
		samples = plain[pixels.Cut.Offset : pixels.Cut.Offset+pixels.Cut.Length]
	}
	h.Dataset.Remove(dict.PixelData)
	out, err := h.Dataset.Encode(nil, explicit)
	if err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 64)
	binary.LittleEndian.PutUint32(frame, 2)
	for s := range 2 { // most significant byte first
		binary.LittleEndian.PutUint32(frame[4+4*s:], uint32(len(frame)))
		for at := 1 - s; at < len(samples); {
			n := min(128, (len(samples)-at+1)/2)
			frame = append(frame, byte(n-1))
			for range n {
				frame = append(frame, samples[at])
				at += 2
			}
		}
		if len(frame)%2 != 0 {
			frame = append(frame, 0)
		}
	}
	le := binary.LittleEndian
	out = append(out, 0xE0, 0x7F, 0x10, 0x00, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF)
	out = append(out, 0xFE, 0xFF, 0x00, 0xE0, 0, 0, 0, 0)
	out = le.AppendUint32(append(out, 0xFE, 0xFF, 0x00, 0xE0), uint32(len(frame)))
	return append(append(out, frame...), 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0)
}

func (b *bench) storeRLE(m image) Stored {
	b.t.Helper()
	s, err := b.Store(context.Background(), Incoming{
		Sender: Sender{CallingAE: "MODALITY"}, Syntax: rleLossless, Body: bytes.NewReader(m.encodeRLE(b.t)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func TestALosslessRenditionIsKeptBesideAndSentAgainIsTheSame(t *testing.T) {
	ctx := context.Background()
	keys := newRing()
	b := open(t, testOptions(vfs.NewMem(), keys))
	defer b.close()
	m := serial(1)
	b.store(m)
	first := b.storeRLE(m)
	if first.Outcome != Rendition {
		t.Fatalf("encoded without loss: outcome %d", first.Outcome)
	}
	if again := b.storeRLE(m); again.Outcome != Same || again.Number != first.Number {
		t.Errorf("the rendition again: %+v", again)
	}
	other := m
	other.seed = 77
	if s := b.storeRLE(other); s.Outcome != Quarantined {
		t.Errorf("other pixels, encoded without loss: outcome %d", s.Outcome)
	} else if err := b.Decide(ctx, s.Number, Discard); err != nil {
		t.Fatal(err)
	}
	b.same(m)
	if r := b.sound(); r.Instances != 3 {
		t.Errorf("%d instances are held", r.Instances)
	}
	// A purge takes the rendition along: nothing of the patient stays.
	if err := b.Delete(ctx, m.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	b.pack()
	if err := b.purge(ctx, purgeTime(b)); err != nil {
		t.Fatal(err)
	}
	if r := b.sound(); r.Instances != 0 || r.Packs != 0 {
		t.Errorf("%d instances in %d packs are left", r.Instances, r.Packs)
	}
	if len(keys.of) != 0 {
		t.Errorf("keys are left: %v", keys.of)
	}
}

func TestWhatWasDeletedInOneStudyComesAgainInAnother(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	wrong := serial(1)
	b.store(wrong)
	if err := b.Committed(ctx, ctClass, wrong.sop, "MODALITY"); err != nil {
		t.Error(err)
	}
	if err := b.Delete(ctx, wrong.study, "", "", "test"); err != nil {
		t.Fatal(err)
	}
	if err := b.Committed(ctx, ctClass, wrong.sop, "MODALITY"); !fault.Is(err, fault.NotFound) || !errors.Is(err, ErrDeleted) {
		t.Errorf("commitment of a deleted instance: %v", err)
	}
	right := wrong
	right.study, right.series, right.patient = "7.7", "7.7.1", "RIGHT"
	if s := b.store(right); s.Outcome != New {
		t.Errorf("in its right study: outcome %d", s.Outcome)
	}
	b.same(right)
	if err := b.Committed(ctx, ctClass, right.sop, "MODALITY"); err != nil {
		t.Errorf("commitment in the right study: %v", err)
	}
	if err := b.Journal().Settle(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Catalog().Study("7.7"); err != nil || s.Instances != 1 {
		t.Errorf("the right study: %+v, %v", s, err)
	}
	b.sound()
}

// atEnd is a body that does something once it was read to its end.
type atEnd struct {
	*bytes.Reader
	do func()
}

func (a *atEnd) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if a.Len() == 0 && a.do != nil {
		a.do()
		a.do = nil
	}
	return n, err
}

func TestAnArrivalOfAStudyThatIsDeletedMeanwhileIsQuarantined(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	b.store(serial(0))
	m := serial(1)
	in := m.incoming(nil)
	in.Body = &atEnd{bytes.NewReader(m.encode(t)), func() {
		if err := b.Delete(ctx, m.study, "", "", "test"); err != nil {
			t.Error(err)
		}
	}}
	s, err := b.Store(ctx, in)
	if err != nil || s.Outcome != Quarantined || !s.Deleted {
		t.Errorf("%+v, %v", s, err)
	}
	if err := b.purge(ctx, purgeTime(b)); err != nil {
		t.Fatal(err)
	}
	if reviews, err := b.Reviews(0, 10); err != nil || len(reviews) != 1 || reviews[0].Number != s.Number {
		t.Errorf("it does not wait for an operator: %+v, %v", reviews, err)
	}
	b.sound()
}

func TestAComparisonThatWasCutShortIsMadeAtTheNextStart(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	m := serial(1)
	b.store(m)
	implicit := m
	implicit.syntax = dict.ImplicitLittleEndian
	// What a crash between the commit and the comparison leaves.
	data := implicit.encode(t)
	in := implicit.incoming(data)
	arrival, err := b.staging.Begin()
	if err != nil {
		t.Fatal(err)
	}
	syntax, _ := dict.Syntax(implicit.syntax)
	tee := tee{body: in.Body, arrival: arrival, hash: blake3.New()}
	header, err := dicom.ReadHeader(&tee, syntax, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	record, err := b.identify(in, header)
	if err != nil {
		t.Fatal(err)
	}
	record.Bytes, record.Hash = tee.bytes, tee.hash.Sum(nil)
	if _, err := b.judge(context.Background(), record); err != nil {
		t.Fatal(err)
	}
	if err := b.commit(context.Background(), arrival, record, header); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Quarantined(); n != 1 || err != nil {
		t.Fatalf("%d quarantined, %v", n, err)
	}
	b.close()
	a, err := openAlone(testOptions(mem, keys))
	if err != nil {
		t.Fatal(err)
	}
	defer closeAlone(a)
	if err := a.settleLeft(context.Background()); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Quarantined(); n != 0 || err != nil {
		t.Errorf("after the start %d are quarantined, %v", n, err)
	}
}

func TestAnArrivalWithoutRowsYieldsToWhatCameSince(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	m := serial(1)
	other := m
	other.seed = 55
	for _, lost := range []image{m, other} { // the same bytes, and others
		arrival, err := b.staging.Begin()
		if err != nil {
			t.Fatal(err)
		}
		in := lost.incoming(lost.encode(t))
		syntax, _ := dict.Syntax(in.Syntax)
		tee := tee{body: in.Body, arrival: arrival, hash: blake3.New()}
		header, err := dicom.ReadHeader(&tee, syntax, dicom.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		record, err := b.identify(in, header)
		if err != nil {
			t.Fatal(err)
		}
		record.Bytes, record.Hash, record.Number = tee.bytes, tee.hash.Sum(nil), b.number.Add(1)
		durable, err := header.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := arrival.Commit(context.Background(), marshal(&archivepb.Arrival{Instance: record, HeaderRow: wholeHeader(durable)})); err != nil {
			t.Fatal(err)
		}
	}
	kept := b.store(m)
	b.close()
	a, err := openAlone(testOptions(mem, keys))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.settleLeft(context.Background()), closeAlone(a)); err != nil {
		t.Fatal(err)
	}
	b = open(t, testOptions(mem, keys))
	defer b.close()
	b.same(m)
	if all, err := b.canonical(m.sop); err != nil || len(all) != 1 || all[0].Number != kept.Number {
		t.Errorf("canonical: %+v, %v", all, err)
	}
	if n, err := b.Quarantined(); n != 1 || err != nil {
		t.Errorf("%d are quarantined, want the one with other bytes; %v", n, err)
	}
	b.sound()
}

func TestRecordsOfDroppedInstancesGoWithTheirSegmentsAndNumbersAreNotReused(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	m := serial(1)
	first := b.store(m).Number
	implicit := m
	implicit.syntax = dict.ImplicitLittleEndian
	for range 5 {
		if s := b.store(implicit); s.Outcome != Same {
			t.Fatalf("outcome %d", s.Outcome)
		}
	}
	b.pack()
	b.close()
	count := func() (n int) {
		if err := b.each([]byte{rowInstance}, func(_, _ []byte) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for range 3 { // the first start finds the segment, later ones do not
		b = open(t, testOptions(mem, keys))
		b.same(m)
		if n := count(); n > 6 {
			t.Errorf("%d records", n)
		}
		b.close()
	}
	b = open(t, testOptions(mem, keys))
	defer b.close()
	if n := count(); n != 2 {
		t.Errorf("%d records are left, want the instance's and that of the highest number", n)
	}
	if next := b.store(serial(2)).Number; next != first+6 {
		t.Errorf("the next number is %d, want %d", next, first+6)
	}
	b.sound()
}

func TestReclaimGivesBackTheSpaceOfWhatWasPurged(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	for n := range 32 {
		m := serial(n)
		m.side = 64
		b.store(m)
	}
	b.pack()
	before := b.bulk.Bytes()
	for _, study := range []string{serial(0).study, serial(8).study} {
		if err := b.Delete(ctx, study, "", "", "test"); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.purge(ctx, purgeTime(b)); err != nil {
		t.Fatal(err)
	}
	if err := b.reclaim(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if after := b.bulk.Bytes(); after > before*3/4 {
		t.Errorf("%d bytes at rest before, %d after half was purged", before, after)
	}
	for n := 16; n < 32; n++ {
		m := serial(n)
		m.side = 64
		b.same(m)
	}
	b.sound()
}
