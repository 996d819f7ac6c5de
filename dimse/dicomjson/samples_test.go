package dicomjson_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync/atomic"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// chosen returns samples that dcmtk reads and that are not of the largest: all
// the odd ones, of other folders twelve, of long series two.
func chosen(t testing.TB) []samples.File {
	var files []samples.File
	perFolder := map[string]int{}
	for _, f := range samples.All(t) {
		folder := filepath.Dir(f.Name)
		if !strings.HasPrefix(f.Dcmdump, "ok") || f.Bytes > 150<<10 {
			continue
		}
		limit := 12
		if strings.Contains(folder, "series-") || strings.Contains(folder, "study-") || strings.Contains(folder, "TINY_ALPHA") || strings.Contains(folder, "first-8") {
			limit = 2
		}
		if perFolder[folder]++; perFolder[folder] > limit && !strings.HasPrefix(folder, "odd") {
			continue
		}
		files = append(files, f)
	}
	return files
}

// sample is a file read as the node reads what it receives.
type sample struct {
	header *dicom.Header
	bytes  []byte // of the (inflated) data set, as far as needed for bulk data
}

func open(t testing.TB, f samples.File) (*sample, error) {
	t.Helper()
	file, err := os.Open(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	meta, body, err := dicom.OpenFile(file)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(raw), syntax, dicom.DefaultLimits)
	if err != nil {
		return nil, err
	}
	return &sample{h, raw}, nil
}

// TestAgreesWithDcm2json compares every value with dcmtk's. What differs on
// purpose is undone on either side by name, so that nothing else may differ.
func TestAgreesWithDcm2json(t *testing.T) {
	tool := dimsetest.Tool(t, "dcm2json")
	files := chosen(t)
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
	if compared.Load() < 150 {
		t.Errorf("only %d files compared", compared.Load())
	}
}

// compare compares one file and reports whether both sides could read it.
func compare(t *testing.T, tool string, f samples.File) bool {
	s, err := open(t, f)
	if err != nil {
		t.Log(err) // what can be read is for package dicom to prove
		return false
	}
	ours, err := dicomjson.AppendDataset(nil, s.header.Dataset, dicomjson.Options{
		BulkURI: func(path string, _ *dicom.Element) string { return "path:" + path },
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "-q", "-fc", "-ee", f.Path).Output()
	if err != nil && s.header.Syntax.Encapsulated { // it cannot write fragments
		out, err = exec.Command(tool, "-q", "-fc", "-ee", withoutPixels(t, f.Path)).Output()
	}
	if err != nil {
		t.Logf("dcm2json cannot: %v", err) // it cannot convert ISO 2022
		return false
	}
	var got, want map[string]any
	if err := json.Unmarshal(ours, &got); err != nil {
		t.Fatal(err)
	}
	if err := unmarshalDcmtk(out, &want); err != nil {
		t.Logf("dcm2json's output is no JSON: %v", err)
		return false
	}
	c := comparison{t: t, name: f.Name, sample: s}
	c.dataset("", s.header.Dataset, got, want)
	return true
}

// withoutPixels returns a copy of a file without its pixel data.
func withoutPixels(t testing.TB, path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "file.dcm")
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command("dcmodify", "-q", "-nb", "-ea", "(7FE0,0010)", to).Run(); err != nil {
		t.Logf("dcmodify: %v", err)
	}
	return to
}

// unmarshalDcmtk reads dcm2json's output, whose -ee writes inf and nan bare.
func unmarshalDcmtk(out []byte, v any) error {
	for _, word := range []string{"nan", "-nan", "inf", "-inf"} {
		for _, end := range []string{",", "]"} {
			out = bytes.ReplaceAll(out, []byte("["+word+end), []byte(`["`+strings.TrimPrefix(word, "-n")+`"`+end))
			out = bytes.ReplaceAll(out, []byte(","+word+end), []byte(`,"`+word+`"`+end))
		}
	}
	return json.Unmarshal(out, v)
}

type comparison struct {
	t      *testing.T
	name   string
	sample *sample
}

func (c *comparison) dataset(path string, ds *dicom.Dataset, got, want map[string]any) {
	tags := map[string]bool{}
	for tag := range got {
		tags[tag] = true
	}
	for tag := range want {
		tags[tag] = true
	}
	sorted := make([]string, 0, len(tags))
	for tag := range tags {
		sorted = append(sorted, tag)
	}
	sort.Strings(sorted)
	for _, tag := range sorted {
		g, _ := got[tag].(map[string]any)
		w, _ := want[tag].(map[string]any)
		c.attribute(path+tag, tag, ds, g, w)
	}
}

func (c *comparison) attribute(path, tag string, ds *dicom.Dataset, got, want map[string]any) {
	id, _ := dicomjson.ParseTag(tag)
	el := ds.Get(id)
	switch {
	case want == nil && id == dict.PixelData && c.sample.header.Syntax.Encapsulated:
		return // taken out for dcm2json
	case path != tag && ds.Has(dict.SpecificCharacterSet) && el != nil && (el.VR.Extended() || id == dict.SpecificCharacterSet):
		return // dcm2json converts the outermost character set only
	case got == nil && (tag == "FFFCFFFC" || strings.HasSuffix(tag, "0000")):
		return // group lengths and trailing padding belong to the encoding
	case got == nil, want == nil, el == nil:
		c.t.Errorf("%s %s: ours %v, dcm2json's %v", c.name, path, short(got), short(want))
		return
	}
	if got["vr"] == "SQ" {
		c.sequence(path, el, got, want)
		return
	}
	if el.VR == dict.UN && got["vr"] != "UN" && want["vr"] == "UN" {
		return // UN of a known attribute: ours is the dictionary's; see TestWriteValues
	}
	if got["vr"] == "UN" && id.IsPrivate() && c.sample.header.Syntax.Implicit {
		return // dcmtk knows many private attributes, we none
	}
	if id == dict.CurveData && got["vr"] == "OW" && want["vr"] == "OB" {
		return // a retired attribute of either VR
	}
	if got["vr"] != want["vr"] {
		c.t.Errorf("%s %s: VR %v, dcm2json's %v", c.name, path, got["vr"], want["vr"])
		return
	}
	if uri, ok := got["BulkDataURI"].(string); ok {
		c.bulk(path, ds, uri, want)
		return
	}
	if len(el.Value)%2 == 1 && el.VR.Bulk() {
		return // dcm2json pads a value of odd length, ours is as it came
	}
	if fmt.Sprint(got["InlineBinary"]) != fmt.Sprint(want["InlineBinary"]) {
		c.t.Errorf("%s %s: InlineBinary %v, dcm2json's %v", c.name, path, short(got), short(want))
		return
	}
	g, _ := got["Value"].([]any)
	w, _ := want["Value"].([]any)
	if s, ok := single(w); ok && len(g) == 0 && strings.Trim(s, " \x00") == "" {
		return // nothing but padding
	}
	if len(g) != len(w) {
		c.t.Errorf("%s %s: %v, dcm2json's %v", c.name, path, short(got), short(want))
		return
	}
	for i := range g {
		if !same(g[i], w[i], got["vr"].(string)) {
			c.t.Errorf("%s %s: value %d is %v, dcm2json's %v", c.name, path, i+1, g[i], w[i])
		}
	}
}

func (c *comparison) sequence(path string, el *dicom.Element, got, want map[string]any) {
	g, _ := got["Value"].([]any)
	w, _ := want["Value"].([]any)
	if len(g) != len(w) || len(g) != len(el.Items) {
		c.t.Errorf("%s %s: %d items, dcm2json's %d", c.name, path, len(g), len(w))
		return
	}
	for i := range g {
		c.dataset(fmt.Sprintf("%s/%d/", path, i+1), el.Items[i], g[i].(map[string]any), w[i].(map[string]any))
	}
}

// bulk checks that the value a reference names is what dcm2json inlines.
func (c *comparison) bulk(path string, ds *dicom.Dataset, uri string, want map[string]any) {
	e, in, err := dicomjson.Resolve(c.sample.header.Dataset, strings.TrimPrefix(uri, "path:"))
	if err != nil || uri != "path:"+path || in != ds {
		c.t.Errorf("%s %s: %s resolves to %v, %v", c.name, path, uri, e, err)
		return
	}
	inline, ok := want["InlineBinary"].(string)
	if !ok {
		c.t.Errorf("%s %s: by reference, dcm2json's %v", c.name, path, short(want))
		return
	}
	value := e.Value
	if e.Cut != nil {
		if c.sample.header.Syntax.Deflated {
			return // its offsets are in the inflated data set
		}
		value = c.sample.bytes[e.Cut.Offset : e.Cut.Offset+e.Cut.Length]
	}
	value = dicomjson.AppendLittleEndian(nil, value, e.VR, in.Syntax)
	if len(value)%2 == 1 {
		value = append(value, 0) // dcm2json pads a value of odd length, ours is as it came
	}
	if base64.StdEncoding.EncodeToString(value) != inline {
		c.t.Errorf("%s %s: %d bytes by reference are not dcm2json's", c.name, path, len(value))
	}
}

// same compares single values.
func same(got, want any, vr string) bool {
	switch g := got.(type) {
	case float64:
		if w, ok := want.(string); ok { // null bytes again
			return strings.TrimRight(w, " \x00") == fmt.Sprint(g)
		}
		w, ok := want.(float64)
		if !ok || g == w {
			return ok
		}
		return vr == "FL" && float32(g) == float32(w) || math.Abs(g-w) <= 1e-14*math.Abs(g) // dcmtk prints 9 and 17 digits
	case string:
		w, _ := want.(string)
		return g == strings.TrimRight(w, " \x00") // dcm2json keeps null bytes where spaces are due
	}
	return fmt.Sprint(got) == fmt.Sprint(want)
}

func single(v []any) (string, bool) {
	if len(v) != 1 {
		return "", false
	}
	s, ok := v[0].(string)
	return s, ok
}

func short(v map[string]any) string {
	s := fmt.Sprint(v)
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}
