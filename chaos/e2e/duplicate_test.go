package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
	"pelago/node/admin"
)

// sameImage are the samples that say what an earlier one under their UID says:
// the same data set in another uncompressed syntax, or one that decodes to it
// without loss. The other lossless encodings differ elsewhere too (their encoder
// added a derivation description), or are in JPEG 2000 or JPEG-LS, which this
// node does not decode.
var sameImage = []string{
	"ct/same-image-many-syntaxes/CTImage_BigEndianExplicit_1.2.840.10008.1.2.2.dcm",
	"ct/same-image-many-syntaxes/CTImage_DeflatedExplicitVRLittleEndian_1.2.840.10008.1.2.1.99.dcm",
	"ct/same-image-many-syntaxes/CTImage_LittleEndianImplicit_1.2.840.10008.1.2.dcm",
	"ct/same-image-many-syntaxes/CTImage_RLELossless_1.2.840.10008.1.2.5.dcm",
	"enhanced-mr/emri_small_RLE.dcm",
	"enhanced-mr/emri_small_big_endian.dcm",
	"mr/single/MR_small_RLE.dcm",
	"mr/single/MR_small_bigendian.dcm",
	"mr/single/MR_small_expb.dcm",
	"mr/single/MR_small_implicit.dcm",
	"odd/ExplVR_LitEndNoMeta.dcm",
	"sc/SC_rgb_expb.dcm",
	"sc/SC_rgb_jpeg_gdcm.dcm",
	"sc/SC_rgb_rle.dcm",
	"sc/SC_rgb_small_odd_big_endian.dcm",
	"seg/liver_expb.dcm",
}

// The samples are the same image in many encodings: what arrives after the
// first is the same, a lossless rendition of it, or another image, which goes
// to quarantine. Nothing changes what readers see.
func TestSamplesUnderOneUIDLeaveTheFirstAsItIs(t *testing.T) {
	c := loadCorpus(t)
	byUID := map[string][]instance{}
	for _, in := range c.valid {
		byUID[in.sop] = append(byUID[in.sop], in)
	}
	var first, later []instance
	for _, in := range c.valid {
		if same := byUID[in.sop]; len(same) > 1 && same[0].name == in.name {
			first = append(first, in)
		} else if len(same) > 1 {
			later = append(later, in)
		}
	}
	if len(first) < 20 || len(later) < 50 {
		t.Fatalf("%d UIDs with %d further files", len(first), len(later))
	}
	n := start(t)
	n.cstore(first)
	n.cstore(later) // each answers success, whatever it is
	n.cstore(later) // again: none is kept twice
	everything := func(where string) {
		t.Helper()
		n.cget(first).same(t, "C-GET "+where, first)
		n.wado(first).same(t, "WADO-RS "+where, first)
	}
	everything("from staging")
	held := n.conflicts()
	n.pack()
	everything("from packs")
	if again := n.conflicts(); len(again) != len(held) {
		t.Errorf("%d quarantined before packing, %d after", len(held), len(again))
	}

	quarantined := map[string]bool{}
	for _, conflict := range held {
		quarantined[fmt.Sprint(conflict.SOP, conflict.Bytes)] = true
	}
	others := map[[32]byte]bool{} // two of the samples are the same file but for group 0002
	for _, in := range later {
		want := !slices.Contains(sameImage, in.name)
		if want {
			others[in.hash] = true
		}
		if got := quarantined[fmt.Sprint(in.sop, len(in.data))]; got != want {
			t.Errorf("%s after %s: quarantined is %v, want %v", in.name, byUID[in.sop][0].name, got, want)
		}
	}
	if len(held) != len(others) {
		t.Errorf("%d are quarantined, want %d", len(held), len(others))
	}
	n.verifyClean()
}

func (n *node) conflicts() []admin.Conflict {
	n.t.Helper()
	var all []admin.Conflict
	n.call(http.MethodGet, "/api/conflicts", nil, &all)
	return all
}

// The uncompressed syntaxes hold the same data set: re-sending it in another is
// a success that stores nothing.
func TestSameInstanceInAnotherUncompressedSyntaxIsNoConflict(t *testing.T) {
	n := start(t)
	var all []instance
	for _, syntax := range []string{dict.ExplicitLittleEndian, dict.ImplicitLittleEndian, dict.ExplicitBigEndian, dict.DeflatedExplicitLittleEndian} {
		i := dimsetest.CT(21, 0)
		i.Rows, i.Columns, i.Syntax = 64, 64, syntax
		all = append(all, made(i))
	}
	for _, in := range all {
		n.cstore([]instance{in})
	}
	n.cget(all[:1]).same(t, "C-GET", all[:1])
	n.counts(1)
	if report := n.verifyClean(); report.Instances != 1 {
		t.Errorf("verify counts %d instances", report.Instances)
	}
}

// Other content under a known UID: success, both kept, the first stays, and an
// operator decides (DESIGN §2, Duplicates). Discarding leaves the first,
// accepting puts the second in its place.
func TestOtherContentIsQuarantinedUntilAnOperatorDecides(t *testing.T) {
	n := start(t)
	one := dimsetest.CT(22, 0)
	one.Rows, one.Columns = 64, 64
	two := one
	two.Seed++ // other pixels
	three := one
	three.StudyDescription = "another"
	first, second, third := made(one), made(two), made(three)
	for _, in := range []instance{first, second, third} { // cstore sends several at once
		n.cstore([]instance{in})
	}
	n.cget([]instance{first}).same(t, "C-GET", []instance{first})

	var listed []admin.Conflict
	n.cliJSON(0, &listed, "conflicts", "list", "--json", "--data", n.Data())
	if len(listed) != 2 || listed[0].SOP != first.sop || listed[0].Against == 0 || listed[0].Sender != "E2E" {
		t.Fatalf("conflicts: %+v", listed)
	}
	slices.SortFunc(listed, func(a, b admin.Conflict) int { return int(a.Number) - int(b.Number) })
	pixels, text := listed[0], listed[1]
	var difference admin.Comparison
	n.cliJSON(0, &difference, "conflicts", "compare", sprint(pixels.Number), "--json", "--data", n.Data())
	if !difference.Pixels || len(difference.Attributes) != 0 {
		t.Errorf("other pixels compare as %+v", difference)
	}
	n.cliJSON(0, &difference, "conflicts", "compare", sprint(text.Number), "--json", "--data", n.Data())
	if difference.Pixels || !slices.Equal(difference.Attributes, []string{"(0008,1030)"}) {
		t.Errorf("another description compares as %+v", difference)
	}

	n.cli(0, "conflicts", "discard", sprint(pixels.Number), "--data", n.Data())
	n.cget([]instance{first}).same(t, "C-GET after discard", []instance{first})
	n.cli(0, "conflicts", "accept", sprint(text.Number), "--data", n.Data())
	n.cget([]instance{third}).same(t, "C-GET after accept", []instance{third})
	n.pack()
	n.cget([]instance{third}).same(t, "C-GET after packing", []instance{third})
	var found []map[string]struct{ Value []any }
	n.call(http.MethodGet, "/dicom-web/studies?StudyInstanceUID="+first.study+"&includefield=StudyDescription", nil, &found)
	if len(found) != 1 || len(found[0]["00081030"].Value) != 1 || found[0]["00081030"].Value[0] != "another" {
		t.Errorf("QIDO-RS after accept: %v", found)
	}
	n.cliJSON(0, &listed, "conflicts", "list", "--json", "--data", n.Data())
	if len(listed) != 1 {
		t.Errorf("conflicts left: %+v", listed)
	}
	n.cli(1, "conflicts", "accept", "999999", "--data", n.Data())
	n.verifyClean()
	n.kill()
	n.restart()
	n.cget([]instance{third}).same(t, "C-GET after a restart", []instance{third})
	n.verifyClean()
}

// A sender whose version is kept aside keeps its copy: its commitment fails.
func TestQuarantinedVersionIsNotCommitted(t *testing.T) {
	n := start(t)
	one := dimsetest.CT(23, 0)
	one.Rows, one.Columns = 64, 64
	two := one
	two.Seed++
	first, second := made(one), made(two)
	n.cstore([]instance{first})
	sender := scu.NewSender(n.target("LATE"), kinds([]instance{second}), 1)
	if _, err := sender.Store(t.Context(), second.outgoing(), scu.Originator{}); err != nil {
		t.Fatal(err)
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := n.commit("E2E", "1.2.3.1", first); len(r.Committed) != 1 || len(r.Failed) != 0 {
		t.Errorf("the first sender's commitment: %+v", r)
	}
	if r := n.commit("LATE", "1.2.3.2", second); len(r.Committed) != 0 || len(r.Failed) != 1 || r.Failed[0].Reason != 0x0110 {
		t.Errorf("the second sender's commitment: %+v", r)
	}
}
