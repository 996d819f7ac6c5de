package engine_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/plan"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogtest"
)

// archive is a node's own instances in memory, and the catalogue that knows them.
type archive struct {
	catalog   *catalog.Catalog
	instances []stored
	read      atomic.Int64 // headers read
	lost      []uint64     // instances that cannot be had
	asked     atomic.Int64 // after the availability of a study
	settle    func(context.Context) error
}

type stored struct {
	query.Instance
	header *dicom.Header
}

func newArchive(t testing.TB) *archive {
	t.Helper()
	c, err := catalog.Open(catalog.Options{FS: vfs.NewMem(), Dir: "catalog", CacheBytes: 1 << 20, Indexer: plan.Indexer{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &archive{catalog: c}
}

// store takes an instance in and announces its series.
func (a *archive) store(t tester, issuer string, ds *dicom.Dataset) {
	t.Helper()
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	b, err := ds.Encode(nil, explicit)
	if err != nil {
		t.Fatal(err)
	}
	h, err := dicom.ReadHeader(bytes.NewReader(b), explicit, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	i := query.Instance{
		Study: ds.String(dict.StudyInstanceUID), Series: ds.String(dict.SeriesInstanceUID), SOP: ds.String(dict.SOPInstanceUID),
		Class: ds.String(dict.SOPClassUID), Syntax: dict.ExplicitLittleEndian, Number: uint64(len(a.instances) + 1), Bytes: int64(len(b)),
	}
	a.instances = append(a.instances, stored{i, h})
	f := &catalog.SeriesFact{Origin: "n", Site: "s", AsOf: i.Number, Study: i.Study, Series: i.Series, Issuer: issuer}
	for _, x := range a.instances {
		if x.Study != i.Study || x.Series != i.Series {
			continue
		}
		if f.Instances == 0 {
			f.Attributes = catalog.Attributes(x.header)
		}
		f.Instances++
		f.Bytes += uint64(x.Bytes)
		f.UIDHash = sha256.Sum256(append(f.UIDHash[:], x.SOP...))
		if !slices.Contains(f.Classes, x.Class) {
			f.Classes = append(f.Classes, x.Class)
			slices.Sort(f.Classes)
		}
	}
	results, err := catalogtest.Alone(a.catalog).Do(f)
	if err != nil {
		t.Fatal(err)
	}
	if results[0] != nil {
		t.Fatal(results[0])
	}
}

func (a *archive) List(ctx context.Context, study, series string) iter.Seq2[query.Instance, error] {
	var list []query.Instance
	for _, x := range a.instances {
		if x.Study == study && (series == "" || x.Series == series) {
			list = append(list, x.Instance)
		}
	}
	slices.SortFunc(list, func(x, y query.Instance) int {
		return cmp.Or(cmp.Compare(x.Series, y.Series), cmp.Compare(x.SOP, y.SOP))
	})
	return func(yield func(query.Instance, error) bool) {
		for _, i := range list {
			if err := ctx.Err(); err != nil {
				yield(query.Instance{}, err)
				return
			}
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (a *archive) Find(_ context.Context, sop string) ([]query.Instance, error) {
	var list []query.Instance
	for _, x := range a.instances {
		if x.SOP == sop {
			list = append(list, x.Instance)
		}
	}
	return list, nil
}

func (a *archive) Header(_ context.Context, number uint64) (*dicom.Header, error) {
	a.read.Add(1)
	if number == 0 || number > uint64(len(a.instances)) {
		return nil, fault.New(fault.NotFound, "no instance %d", number)
	}
	return a.instances[number-1].header, nil
}

func (a *archive) Availability(_ context.Context, study, series string, number uint64) query.Availability {
	if study != "" {
		a.asked.Add(1)
	}
	for _, lost := range a.lost {
		x := a.instances[lost-1]
		if (study == "" || x.Study == study) && (series == "" || x.Series == series) && (number == 0 || x.Number == number) {
			return query.Unavailable
		}
	}
	return query.Online
}

func (a *archive) Settle(ctx context.Context) error {
	if a.settle != nil {
		return a.settle(ctx)
	}
	return nil
}

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// attribute is a text attribute of a test's data set.
type attribute struct {
	tag   dict.Tag
	value string
}

// dataset builds a data set of text attributes.
func dataset(attributes ...attribute) *dicom.Dataset {
	ds := dicom.NewDataset()
	for _, a := range attributes {
		e, ok := dict.Lookup(a.tag)
		if !ok {
			panic(fmt.Sprintf("no attribute %v", a.tag))
		}
		if a.value == "" {
			ds.Set(a.tag, e.VR)
		} else {
			ds.Set(a.tag, e.VR, a.value)
		}
	}
	return ds
}
