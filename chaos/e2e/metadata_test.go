package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
)

// jsonElement is an attribute of the DICOM JSON model (PS3.18 Annex F).
type jsonElement struct {
	VR           string            `json:"vr"`
	Value        []json.RawMessage `json:"Value"`
	InlineBinary string            `json:"InlineBinary"`
	BulkDataURI  string            `json:"BulkDataURI"`
}

type jsonDataset map[string]jsonElement

// The metadata says what dcm2json says of the file.
func TestMetadataSaysWhatDcm2jsonSays(t *testing.T) {
	dimsetest.Tool(t, "dcm2json")
	paths := map[string]string{}
	for _, f := range samples.All(t) {
		if f.Dcmdump == "ok" {
			paths[f.Name] = f.Path
		}
	}
	step := 9
	if testing.Short() {
		step = 45
	}
	var some []instance
	for i, in := range loadCorpus(t).valid {
		if (i%step == 0 || strings.HasPrefix(in.name, "charset/") || strings.HasPrefix(in.name, "sr/")) && paths[in.name] != "" && !in.nonPatient() {
			some = append(some, in)
		}
	}
	some = waves(some)[0]
	n := start(t)
	n.cstore(some)
	compared, attributes := 0, 0
	for _, in := range some {
		out, err := dimsetest.TryRun(t, "dcm2json", "-q", "-fc", paths[in.name])
		if err != nil {
			continue // a character set or value that it does not convert
		}
		var want jsonDataset
		if err := json.Unmarshal([]byte(out), &want); err != nil {
			continue // it writes nan and the like as they stand
		}
		var got []jsonDataset
		n.call(http.MethodGet, fmt.Sprintf("/dicom-web/studies/%s/series/%s/instances/%s/metadata", url.PathEscape(in.study), url.PathEscape(in.series), url.PathEscape(in.sop)), nil, &got)
		if len(got) != 1 {
			t.Errorf("%s: %d data sets", in.name, len(got))
			continue
		}
		c := &comparison{t: t, name: in.name}
		c.datasets("", got[0], want)
		compared++
		attributes += c.attributes
	}
	t.Logf("%d samples, %d attributes", compared, attributes)
	if compared < len(some)*2/3 || !testing.Short() && compared < 48 {
		t.Errorf("only %d of %d samples were compared", compared, len(some))
	}
}

// comparison compares our metadata with dcm2json's.
type comparison struct {
	t          *testing.T
	name       string
	attributes int
	wrong      int
}

func (c *comparison) fail(format string, args ...any) {
	if c.wrong++; c.wrong <= 5 {
		c.t.Errorf("%s: "+format, append([]any{c.name}, args...)...)
	}
}

func (c *comparison) datasets(path string, got, want jsonDataset) {
	tags := map[string]bool{}
	for tag := range got {
		tags[tag] = true
	}
	for tag := range want {
		tags[tag] = true
	}
	for tag := range tags {
		at := path + tag
		g, ours := got[tag]
		w, theirs := want[tag]
		switch {
		case strings.HasPrefix(tag, "0002"), strings.HasSuffix(tag, "0000"), tag == "FFFCFFFC":
			// Group 0002, group lengths and padding are no part of metadata.
			if ours {
				c.fail("%s is in the metadata", at)
			}
		case tag == "00080005", path == "" && tag == "00083002":
			// Our text is UTF-8 and says so; the available transfer syntax is added.
		case !ours:
			c.fail("%s is missing", at)
		case !theirs:
			c.fail("%s is not in the file", at)
		default:
			c.attributes++
			c.elements(at, g, w)
		}
	}
	if charset := got["00080005"]; path == "" && len(charset.Value) > 0 && string(charset.Value[0]) != `"ISO_IR 192"` {
		c.fail("the character set of the metadata is %s", charset.Value[0])
	}
}

func (c *comparison) elements(at string, got, want jsonElement) {
	switch {
	case got.VR == want.VR:
	case want.VR == "UN" || got.VR == "UN":
		return // one of the two knows more private attributes, or sees a sequence
	case slices.Contains([]string{"US", "SS", "OW", "OB"}, got.VR) && slices.Contains([]string{"US", "SS", "OW", "OB"}, want.VR):
		if got.VR != want.VR && (strings.HasPrefix(got.VR, "O") || strings.HasPrefix(want.VR, "O")) {
			return // bulk in one, numbers in the other
		}
	default:
		c.fail("%s is %s, dcm2json says %s", at, got.VR, want.VR)
		return
	}
	if got.VR == "SQ" {
		if len(got.Value) != len(want.Value) {
			c.fail("%s has %d items, dcm2json says %d", at, len(got.Value), len(want.Value))
			return
		}
		for i := range got.Value {
			var g, w jsonDataset
			if json.Unmarshal(got.Value[i], &g) != nil && string(got.Value[i]) != "null" || json.Unmarshal(want.Value[i], &w) != nil && string(want.Value[i]) != "null" {
				c.fail("%s item %d does not parse", at, i)
				continue
			}
			c.datasets(fmt.Sprintf("%s[%d].", at, i), g, w)
		}
		return
	}
	if got.BulkDataURI != "" || want.BulkDataURI != "" || got.InlineBinary != "" || want.InlineBinary != "" {
		if len(got.Value) > 0 || got.InlineBinary != "" && want.InlineBinary != "" && got.InlineBinary != want.InlineBinary {
			c.fail("%s has other binary data", at)
		}
		return
	}
	g, w := c.values(got), c.values(want)
	same := func(g, w string) bool { return sameValue(g, w, got.VR == "FL") }
	if !slices.EqualFunc(g, w, same) {
		c.fail("%s is %.200q, dcm2json says %.200q", at, g, w)
	}
}

// values are an attribute's values as text: names by component group, numbers
// as they are written; empty values at the end do not count.
func (c *comparison) values(e jsonElement) []string {
	var all []string
	for _, raw := range e.Value {
		text := string(raw)
		var name struct{ Alphabetic, Ideographic, Phonetic string }
		var plain string
		switch {
		case text == "null":
			text = ""
		case e.VR == "PN" && json.Unmarshal(raw, &name) == nil:
			text = strings.TrimRight(strings.Join([]string{trim(name.Alphabetic), trim(name.Ideographic), trim(name.Phonetic)}, "="), "=")
		case json.Unmarshal(raw, &plain) == nil:
			text = trim(plain)
		}
		all = append(all, text)
	}
	for len(all) > 0 && all[len(all)-1] == "" {
		all = all[:len(all)-1]
	}
	return all
}

func trim(s string) string { return strings.Trim(s, " \x00\r\n\f\t") }

// sameValue compares numbers by value, since programs write them differently:
// single ones in more digits than they have.
func sameValue(got, want string, single bool) bool {
	if got == want {
		return true
	}
	g, err1 := strconv.ParseFloat(got, 64)
	w, err2 := strconv.ParseFloat(want, 64)
	return err1 == nil && err2 == nil && (g == w || single && float32(g) == float32(w) || math.Abs(g-w) <= 1e-14*math.Abs(w))
}
