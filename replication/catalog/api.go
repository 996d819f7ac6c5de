// Package catalog is the replicated table of patients, studies and series,
// tombstones and registries, with its secondary indexes: a deterministic state
// machine in a Pebble of its own (catalog/). The same commands in the same
// order give the same rows on every node.
package catalog

import (
	"context"
	"iter"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Catalog is the state machine and its indexes.
type Catalog struct{}

// Options are where and how a catalogue rests.
type Options struct {
	FS         vfs.FS
	Dir        string
	CacheBytes int64
}

// Open opens or creates the catalogue.
func Open(o Options) (*Catalog, error) { panic("catalog: Open") }

// Close closes it.
func (c *Catalog) Close() error { panic("catalog") }

// Applied returns the highest applied index.
func (c *Catalog) Applied() uint64 { panic("catalog") }

// Sync makes what was applied durable.
func (c *Catalog) Sync() error { panic("catalog") }

// Command is one change; one of the types below. Each encodes to protobuf with
// a version and the least version that a reader needs (catalogpb).
type Command interface{ command() }

// Apply applies commands atomically together with the applied index; an index
// at or below the applied one is skipped. Results are per command: nil or an
// error of a kind (Conflict, NotFound) that every node computes alike.
func (c *Catalog) Apply(index uint64, commands []Command) ([]error, error) { panic("catalog") }

// SeriesFact is what one origin knows of a series: absolute values as of its
// local number AsOf. Count 0 means that the origin holds nothing of it any more.
type SeriesFact struct {
	Origin string // node id
	Site   string
	AsOf   uint64
	Study  string
	Series string
	Issuer string // of the Patient ID, resolved (DESIGN §10); the id is in Attributes
	// Attributes is a data set in explicit little endian and ISO_IR 192 with the
	// attributes of PatientTags, StudyTags and SeriesTags that the origin has.
	Attributes []byte
	Instances  uint64
	Bytes      uint64
	UIDHash    [32]byte // sum modulo 2^256 of BLAKE3 of each SOP Instance UID
	Classes    []string // SOP classes, ascending
	Reserved   bool     // the reserved series of Non-Patient Objects: in no query count
	Arrived    int64    // Unix microseconds of the latest arrival, for people only
}

// TombstoneFact says that an object is deleted; the empty Series or Instance
// widens it. Tick is committed time, Unix seconds.
type TombstoneFact struct {
	Study, Series, Instance string
	Tick                    int64
	By                      string
}

// RestoreFact takes a tombstone back within the delete grace.
type RestoreFact struct {
	Study, Series, Instance string
	Tick                    int64
	By                      string
}

// RegistryFact sets or, with an empty Value, drops one registry record, such as
// an AE under ("ae", "SITE/TITLE"). Value is opaque here.
type RegistryFact struct {
	Kind, Name string
	Value      []byte
}

func (*SeriesFact) command()    {}
func (*TombstoneFact) command() {}
func (*RestoreFact) command()   {}
func (*RegistryFact) command()  {}

// The attributes that the catalogue holds, by level, in tag order.
var (
	PatientTags []dict.Tag
	StudyTags   []dict.Tag
	SeriesTags  []dict.Tag
)

// Attributes picks PatientTags, StudyTags and SeriesTags from an instance's
// header, decoded to ISO_IR 192, as SeriesFact.Attributes has them.
func Attributes(h *dicom.Header) []byte { panic("catalog: Attributes") }

// Study is a study record.
type Study struct {
	UID        string
	Attributes *dicom.Dataset // patient and study attributes, computed ones included
	Patients   []PatientKey   // more than one is a conflict shown to the operator
	Series     uint32
	Instances  uint64
	Bytes      uint64
	Modalities []string
	Classes    []string
	Sites      []string
	Arrived    int64
}

// PatientKey is a Patient ID under its issuer.
type PatientKey struct{ Issuer, ID string }

// Series is a series record.
type Series struct {
	Study, UID string
	Attributes *dicom.Dataset
	Instances  uint64
	Bytes      uint64
	Classes    []string
	Sites      []string
	Reserved   bool
	Arrived    int64
}

// Study returns a study record; fault.NotFound when absent or deleted.
func (c *Catalog) Study(uid string) (*Study, error) { panic("catalog") }

// Series yields a study's series in ascending UID order.
func (c *Catalog) Series(ctx context.Context, study string) iter.Seq2[*Series, error] {
	panic("catalog")
}

// Deleted returns the tombstone that covers an instance (or series, or study,
// with the lower UIDs empty), if any.
func (c *Catalog) Deleted(study, series, instance string) (*TombstoneFact, bool) { panic("catalog") }

// Tombstones yields all tombstones in key order.
func (c *Catalog) Tombstones(ctx context.Context) iter.Seq2[*TombstoneFact, error] {
	panic("catalog")
}

// Registry yields the records of a kind by name.
func (c *Catalog) Registry(kind string) iter.Seq2[string, []byte] { panic("catalog") }

// Totals are the numbers of patients, studies, series and instances.
type Totals struct{ Patients, Studies, Series, Instances, Bytes uint64 }

// Totals returns the counts, kept up to date by Apply.
func (c *Catalog) Totals() Totals { panic("catalog") }
