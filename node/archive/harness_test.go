package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/replication/catalog"
	"pelago/replication/catalog/alone"
	"pelago/shard/seal"
)

const ctClass = "1.2.840.10008.5.1.4.1.1.2"

// ring is a key ring in memory, that outlives crashes as the real one does.
type ring struct {
	mu   sync.Mutex
	keys map[[16]byte]seal.Key
	of   map[string][16]byte
	wait bool // for an epoch key
}

func (r *ring) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wait {
		return fault.New(fault.Unavailable, "no epoch key")
	}
	return nil
}

// await makes the ring one that has no epoch key, or has it.
func (r *ring) await(wait bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait = wait
}

func newRing() *ring { return &ring{keys: map[[16]byte]seal.Key{}, of: map[string][16]byte{}} }

// copyWhile copies the ring while f runs and nobody takes or forgets a key: both
// are of one moment, as they are where keys rest on the same disk.
func (r *ring) copyWhile(f func()) *ring {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	return &ring{keys: maps.Clone(r.keys), of: maps.Clone(r.of)}
}

func (r *ring) ForStudy(study string) ([16]byte, seal.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, ok := r.of[study]
	if !ok {
		id = [16]byte(blake3Sum("id" + study))
		r.of[study] = id
		r.keys[id] = seal.Key(sha256.Sum256([]byte("key" + study)))
	}
	return id, r.keys[id], nil
}

func (r *ring) Prepare(studies ...string) error {
	for _, study := range studies {
		if _, _, err := r.ForStudy(study); err != nil {
			return err
		}
	}
	return nil
}

func (r *ring) Key(id [16]byte) (seal.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, ok := r.keys[id]
	if !ok {
		return key, fault.New(fault.NotFound, "no such key")
	}
	return key, nil
}

func (r *ring) ForgetOwn(studies ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, study := range studies {
		delete(r.keys, r.of[study])
		delete(r.of, study)
	}
	return nil
}

func blake3Sum(s string) []byte {
	sum := blake3.Sum256([]byte(s))
	return sum[:16]
}

// image describes a synthetic instance.
type image struct {
	study, series, sop string
	patient            string
	syntax             string // "": explicit little endian
	seed               int
	side               int // pixels; 0: none
	class              string
}

// encode returns the data set's bytes.
func (m image) encode(t testing.TB) []byte {
	t.Helper()
	if m.syntax == "" {
		m.syntax = dict.ExplicitLittleEndian
	}
	if m.class == "" {
		m.class = ctClass
	}
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	ds := dicom.NewDataset()
	ds.Set(dict.SOPClassUID, dict.UI, m.class)
	ds.Set(dict.SOPInstanceUID, dict.UI, m.sop)
	if m.study != "" {
		ds.Set(dict.StudyInstanceUID, dict.UI, m.study)
		ds.Set(dict.SeriesInstanceUID, dict.UI, m.series)
	}
	ds.Set(dict.PatientID, dict.LO, m.patient)
	ds.Set(dict.PatientName, dict.PN, "Test^"+m.patient)
	ds.Set(dict.StudyDate, dict.DA, "20260102")
	ds.Set(dict.Modality, dict.CS, "CT")
	ds.Set(dict.PhotometricInterpretation, dict.CS, "MONOCHROME2")
	if m.side > 0 {
		for tag, v := range map[dict.Tag]uint64{
			dict.SamplesPerPixel: 1, dict.Rows: uint64(m.side), dict.Columns: uint64(m.side),
			dict.BitsAllocated: 16, dict.BitsStored: 16, dict.HighBit: 15, dict.PixelRepresentation: 0,
		} {
			ds.SetUint(tag, dict.US, v)
		}
		pixels := make([]byte, 0, m.side*m.side*2)
		for i := range m.side * m.side {
			pixels = binary.LittleEndian.AppendUint16(pixels, uint16(i*7+m.seed*31+(i*i)%(m.seed%13+2)))
		}
		ds.Put(dicom.Element{Tag: dict.PixelData, VR: dict.OW, Value: pixels})
	}
	b, err := ds.Encode(nil, explicit)
	if err != nil {
		t.Fatal(err)
	}
	if m.syntax == dict.ExplicitLittleEndian {
		return b
	}
	h, err := dicom.ReadHeader(bytes.NewReader(b), explicit, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	to, _ := dict.Syntax(m.syntax)
	if err := h.Convert(&out, bytes.NewReader(b), to); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (m image) incoming(b []byte) Incoming {
	syntax := m.syntax
	if syntax == "" {
		syntax = dict.ExplicitLittleEndian
	}
	return Incoming{Sender: Sender{CallingAE: "MODALITY"}, Syntax: syntax, Body: bytes.NewReader(b)}
}

// serial makes image n of a small hospital: 4 images a series, 2 series a study.
func serial(n int) image {
	return image{
		study: fmt.Sprintf("1.2.%d", n/8), series: fmt.Sprintf("1.2.%d.%d", n/8, n/4%2), sop: fmt.Sprintf("1.2.%d.%d.%d", n/8, n/4%2, n),
		patient: fmt.Sprintf("P%d", n/8), seed: n, side: 24,
	}
}

// bench is an archive that runs.
type bench struct {
	*Archive
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error
}

func testOptions(fs vfs.FS, keys Keys) Options {
	return Options{
		FS: fs, Dir: "data", Node: "node", Site: "site", Keys: keys,
		TableBytes: 1 << 20, PackBytes: 256 << 10, Ballast: 1, CacheBytes: 1 << 20,
		Quiet: time.Hour, Age: time.Hour, Gather: time.Hour,
		Free: func() (int64, int64, error) { return 1 << 40, 1 << 40, nil },
	}
}

// network is a network of one: what is decided is durable.
type network struct {
	*alone.Solo
	c *catalog.Catalog
}

func (n network) Decide(ctx context.Context, conditions []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	results, err := n.Solo.Decide(ctx, conditions, commands...)
	return results, errors.Join(err, n.c.Sync())
}

// openAlone opens an archive that is a network of its own.
func openAlone(o Options) (*Archive, error) {
	c, err := OpenCatalog(o)
	if err != nil {
		return nil, err
	}
	n := network{alone.New(c), c}
	if member, err := c.RegistryRecord(catalog.KindMember, o.Node); err != nil || member == nil {
		if _, err := n.Decide(context.Background(), nil, alone.Member(o.Node, o.Site)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	o.Catalog, o.Propose, o.Decide, o.Signer = c, n, n, alone.SignerOf(o.Node)
	a, err := Open(o)
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return a, nil
}

// closeAlone closes it with its catalogue.
func closeAlone(a *Archive) error { return errors.Join(a.Close(), a.catalog.Close()) }

func open(t testing.TB, o Options) *bench {
	t.Helper()
	a, err := openAlone(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &bench{Archive: a, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { b.ended <- a.Run(ctx) }()
	return b
}

// openPurged opens an archive whose first round of purging is over. The next one
// is an hour away: what a test makes is not purged in the middle of it.
func openPurged(t testing.TB, o Options) *bench {
	t.Helper()
	purged := make(chan struct{})
	over := sync.OnceFunc(func() { close(purged) })
	o.Observe = func(work string, _ time.Duration, _ error) {
		if work == "purge" {
			over()
		}
	}
	b := open(t, o)
	<-purged
	return b
}

func (b *bench) close() {
	b.t.Helper()
	b.cancel()
	if err := <-b.ended; err != nil {
		b.t.Errorf("run: %v", err)
	}
	if err := closeAlone(b.Archive); err != nil {
		b.t.Errorf("close: %v", err)
	}
}

// store stores an image that must be taken.
func (b *bench) store(m image) Stored {
	b.t.Helper()
	data := m.encode(b.t)
	s, err := b.Store(context.Background(), m.incoming(data))
	if err != nil {
		b.t.Fatalf("store %s: %v", m.sop, err)
	}
	return s
}

// read returns the bytes of the canonical instance of an image.
func (b *bench) read(m image) ([]byte, error) {
	for ref, err := range b.Select(context.Background(), m.study, m.series, m.sop) {
		if err != nil {
			return nil, err
		}
		in, err := b.Open(context.Background(), ref)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		return io.ReadAll(io.NewSectionReader(in.Stored(), 0, ref.Bytes))
	}
	return nil, fault.New(fault.NotFound, "nothing selected")
}

// same checks that an image is there, byte for byte.
func (b *bench) same(m image) {
	b.t.Helper()
	got, err := b.read(m)
	if err != nil {
		b.t.Errorf("%s: %v", m.sop, err)
		return
	}
	if !bytes.Equal(got, m.encode(b.t)) {
		b.t.Errorf("%s: came back different", m.sop)
	}
}

func (b *bench) pack() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := b.Pack(ctx); err != nil {
		b.t.Fatalf("pack: %v", err)
	}
}

// sound checks that verify finds nothing wrong.
func (b *bench) sound() *Report {
	b.t.Helper()
	r, err := b.Verify(context.Background(), nil)
	if err != nil {
		b.t.Fatalf("verify: %v", err)
	}
	for _, f := range r.Findings {
		b.t.Errorf("verify: %s: %s: %s", f.Kind, f.Object, f.Detail)
	}
	return r
}
