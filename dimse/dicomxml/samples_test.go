package dicomxml_test

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dicomxml"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// TestAgreesWithDcm2xml reads our document and dcm2xml's with the same parser
// and compares every value. What differs on purpose is named in compare.
func TestAgreesWithDcm2xml(t *testing.T) {
	tool := dimsetest.Tool(t, "dcm2xml")
	perFolder := map[string]int{}
	var files []samples.File
	for _, f := range samples.All(t) {
		// Of the smaller files some of each folder: bulk data is compared as JSON.
		if strings.HasPrefix(f.Dcmdump, "ok") && f.Bytes < 60<<10 && perFolder[filepath.Dir(f.Name)] < 8 {
			perFolder[filepath.Dir(f.Name)]++
			files = append(files, f)
		}
	}
	var compared atomic.Int64
	t.Run("files", func(t *testing.T) {
		for _, f := range files {
			t.Run(f.Name, func(t *testing.T) {
				t.Parallel()
				if compare(t, tool, f) {
					compared.Add(1)
				}
			})
		}
	})
	t.Logf("%d files compared", compared.Load())
	if compared.Load() < 100 {
		t.Errorf("only %d files compared", compared.Load())
	}
}

func compare(t *testing.T, tool string, f samples.File) bool {
	file, err := os.Open(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	meta, body, err := dicom.OpenFile(file)
	if err != nil {
		t.Log(err) // what can be read is for package dicom to prove
		return false
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	header, err := dicom.ReadHeader(body, syntax, dicom.DefaultLimits)
	if err != nil {
		t.Log(err)
		return false
	}
	ours, err := dicomxml.AppendDataset(nil, header.Dataset, dicomjson.Options{
		BulkURI: func(path string, _ *dicom.Element) string { return path },
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "-q", "-nat", "+Xn", "+U8", "+Eb", f.Path).Output()
	if err != nil {
		t.Logf("dcm2xml cannot: %v", err) // it cannot convert ISO 2022
		return false
	}
	limits := dicomjson.DefaultLimits
	want, _, err := dicomxml.Parse(bytes.NewReader(out), limits)
	if err != nil {
		t.Logf("dcm2xml's output is no Native DICOM Model: %v", err)
		return false
	}
	got, _, err := dicomxml.Parse(bytes.NewReader(ours), limits)
	if err != nil {
		t.Fatal(err)
	}
	c := comparison{t: t, source: header.Dataset}
	c.datasets("", header.Dataset, got, want)
	return true
}

type comparison struct {
	t      *testing.T
	source *dicom.Dataset
}

func (c *comparison) datasets(path string, source, got, want *dicom.Dataset) {
	tags := map[dict.Tag]bool{}
	for _, ds := range []*dicom.Dataset{got, want} {
		for i := range ds.Elements {
			tags[ds.Elements[i].Tag] = true
		}
	}
	for tag := range tags {
		if source.Has(dict.SpecificCharacterSet) && path != "" {
			continue // dcm2xml converts the outermost character set only
		}
		c.elements(path+tag.String(), source, got, want, tag)
	}
}

func (c *comparison) elements(path string, source, got, want *dicom.Dataset, tag dict.Tag) {
	g, w, s := got.Get(tag), want.Get(tag), source.Get(tag)
	switch {
	case tag == dict.SpecificCharacterSet:
		return // both are what Parse puts there
	case (g == nil || w == nil) && tag.IsPrivate() && sharesCreator(source, tag.Group()):
		// dcm2xml drops the blocks all the same, and the attributes fall together
	case g == nil, w == nil:
		c.t.Errorf("%s: ours %v, dcm2xml's %v", path, g != nil, w != nil)
	case tag.IsPrivate() && g.VR == dict.UN && c.source.Syntax.Implicit:
		// dcmtk knows many private attributes, we none
	case s != nil && s.VR == dict.UN && g.VR != w.VR:
		// UN of a known attribute: ours is the dictionary's
	case g.VR != w.VR:
		c.t.Errorf("%s: VR %v, dcm2xml's %v", path, g.VR, w.VR)
	case s != nil && (s.Cut != nil || dicomjson.ByReference(s)):
		// compared by package dicomjson
	case g.VR == dict.SQ:
		if len(g.Items) != len(w.Items) || s == nil || len(s.Items) != len(g.Items) {
			c.t.Errorf("%s: %d items, dcm2xml's %d", path, len(g.Items), len(w.Items))
			return
		}
		for i := range g.Items {
			c.datasets(path+" item "+strconv.Itoa(i+1)+" ", s.Items[i], g.Items[i], w.Items[i])
		}
	case g.VR == dict.FL, g.VR == dict.FD:
		c.floats(path, dicomjson.Values(got, g), dicomjson.Values(want, w))
	case g.VR.Bulk():
		swapped := dicomjson.AppendLittleEndian(nil, w.Value, w.VR, dict.TransferSyntax{BigEndian: true})
		if !bytes.Equal(g.Value, swapped) && !bytes.Equal(g.Value, w.Value) { // dcm2xml writes big endian, PS3.19 A.1.5 wants little
			c.t.Errorf("%s: %d bytes, dcm2xml's %d", path, len(g.Value), len(w.Value))
		}
	default:
		a, b := dicomjson.Values(got, g), dicomjson.Values(want, w)
		if !slices.Equal(a, b) {
			c.t.Errorf("%s: %q, dcm2xml's %q", path, a, b)
		}
	}
}

// sharesCreator reports whether two blocks of a group have the same creator.
func sharesCreator(ds *dicom.Dataset, group uint16) bool {
	seen := map[string]bool{}
	for i := range ds.Elements {
		t := ds.Elements[i].Tag
		if t.Group() == group && t.Element() >= 0x10 && t.Element() <= 0xFF {
			name := ds.String(t)
			if seen[name] {
				return true
			}
			seen[name] = true
		}
	}
	return false
}

// floats compares to the digits that dcmtk prints.
func (c *comparison) floats(path string, got, want []string) {
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		g, _ := strconv.ParseFloat(got[i], 64)
		w, _ := strconv.ParseFloat(want[i], 64)
		same = g == w || math.Abs(g-w) <= 1e-7*math.Abs(g) || math.IsNaN(g) && math.IsNaN(w)
	}
	if !same {
		c.t.Errorf("%s: %v, dcm2xml's %v", path, got, want)
	}
}
