package dict_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/suyashkumar/dicom/pkg/tag"

	"pelago/dimse/dict"
)

func TestLookup(t *testing.T) {
	tests := []struct {
		name    string
		tag     dict.Tag
		keyword string
		vr      dict.VR
		found   bool
	}{
		{"plain", dict.PatientName, "PatientName", dict.PN, true},
		{"command group", dict.MessageID, "MessageID", dict.US, true},
		{"file meta group", 0x00020010, "TransferSyntaxUID", dict.UI, true},
		{"group length", 0x00080000, "GenericGroupLength", dict.UL, true},
		{"private group length", 0x00090000, "PrivateGroupLength", dict.UL, true},
		{"private creator, first", 0x00090010, "PrivateCreator", dict.LO, true},
		{"private creator, last", 0x000900FF, "PrivateCreator", dict.LO, true},
		{"private element", 0x00091010, "", 0, false},
		{"element below the private creators", 0x00090001, "", 0, false},
		{"overlay data of the second overlay", 0x60023000, "OverlayData", dict.OB, true},
		{"overlay in an odd group is private", 0x60013000, "", 0, false},
		{"curve data of the third curve", 0x50043000, "CurveData", dict.OB, true},
		{"source image ids", 0x00203177, "SourceImageIDs", dict.CS, true},
		{"variable pixel data", 0x7F040010, "VariablePixelData", dict.OB, true},
		{"code table of the second code", 0x00280818, "ImageDataLocation", dict.AT, true},
		{"exact tag beside a repeating one", 0x00280400, "TransformLabel", dict.LO, true},
		{"second transform", 0x00280410, "RowsForNthOrderCoefficients", dict.US, true},
		{"unknown public", 0x00080FF1, "", 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, found := dict.Lookup(tt.tag)
			if found != tt.found || e.Keyword != tt.keyword || e.VR != tt.vr {
				t.Errorf("Lookup(%v) = %q %v %v, want %q %v %v", tt.tag, e.Keyword, e.VR, found, tt.keyword, tt.vr, tt.found)
			}
		})
	}
}

func TestImplicitVR(t *testing.T) {
	tests := []struct {
		name   string
		tag    dict.Tag
		signed bool
		want   dict.VR
	}{
		{"pixel data is OW", dict.PixelData, false, dict.OW},
		{"overlay data is OW", 0x60023000, false, dict.OW},
		{"LUT data is OW", dict.LUTData, true, dict.OW},
		{"US or SS, unsigned pixels", dict.SmallestImagePixelValue, false, dict.US},
		{"US or SS, signed pixels", dict.SmallestImagePixelValue, true, dict.SS},
		{"one VR is itself whatever the pixels", dict.Rows, true, dict.US},
		{"private creator", 0x00090011, false, dict.LO},
		{"private value", 0x00091101, false, dict.UN},
		{"unknown value", 0x00080FF1, false, dict.UN},
		{"unknown group length", 0x00060000, false, dict.UL},
		{"private group length", 0x00070000, false, dict.UL},
	}
	for _, tt := range tests {
		if got := dict.ImplicitVR(tt.tag, tt.signed); got != tt.want {
			t.Errorf("%s: ImplicitVR(%v, %v) = %v, want %v", tt.name, tt.tag, tt.signed, got, tt.want)
		}
	}
}

// The dictionary that the table is made from agrees with it wherever the
// supplement does not say otherwise.
func TestAgreesWithItsSource(t *testing.T) {
	corrected := map[dict.Tag]bool{0x00280400: true, 0x00280401: true, 0x00280402: true, 0x00280403: true}
	n := 0
	for _, keyword := range dict.Keywords() {
		e, ok := dict.ByKeyword(keyword)
		if !ok || e.Keyword != keyword {
			t.Fatalf("ByKeyword(%q) = %+v, %v", keyword, e, ok)
		}
		if back, ok := dict.Lookup(e.Tag); !ok || back != e {
			if !corrected[e.Tag&0xFFFFFF0F] {
				t.Errorf("Lookup(%v) = %+v, want %+v", e.Tag, back, e)
			}
		}
		source, err := tag.Find(tag.Tag{Group: e.Tag.Group(), Element: e.Tag.Element()})
		if err != nil || e.Tag.Group() == 0 || corrected[e.Tag] {
			continue
		}
		n++
		if vr := e.VR.String(); vr != source.VRs[0] && source.VRs[0] != "NA" {
			t.Errorf("%v: VR %s, source says %v", e.Tag, vr, source.VRs)
		}
		if e.Keyword != source.Keyword || e.Retired != source.Retired {
			t.Errorf("%v: %+v, source says %+v", e.Tag, e, source)
		}
		if !e.VR.Known() {
			t.Errorf("%v: unknown VR %v", e.Tag, e.VR)
		}
	}
	if n < 5000 {
		t.Errorf("only %d attributes were compared", n)
	}
	if _, ok := dict.ByKeyword("NoSuchKeyword"); ok {
		t.Error("ByKeyword found what is not there")
	}
}

func TestSyntaxes(t *testing.T) {
	all := dict.Syntaxes()
	if !slices.IsSortedFunc(all, func(a, b dict.TransferSyntax) int { return strings.Compare(a.UID, b.UID) }) {
		t.Error("not in ascending order")
	}
	for _, s := range all {
		got, ok := dict.Syntax(s.UID)
		if !ok || got != s {
			t.Errorf("Syntax(%s) = %+v, %v", s.UID, got, ok)
		}
		if (s.Video && !s.Encapsulated) || (s.Video && s.Lossless) || (s.Uncompressed() && !s.Lossless) {
			t.Errorf("%s: flags contradict each other: %+v", s.Name, s)
		}
	}
	var uncompressed []string
	for _, s := range all {
		if s.Uncompressed() {
			uncompressed = append(uncompressed, s.UID)
		}
	}
	want := []string{dict.ImplicitLittleEndian, dict.ExplicitLittleEndian, dict.DeflatedExplicitLittleEndian, dict.ExplicitBigEndian, dict.Papyrus3ImplicitVRLittleEndian}
	if !slices.Equal(uncompressed, want) {
		t.Errorf("uncompressed: %v, want %v", uncompressed, want)
	}
	s, ok := dict.Syntax("1.2.3.4")
	if ok || s.UID != "1.2.3.4" || s.Implicit || s.BigEndian || s.Deflated || s.Refused || s.Uncompressed() {
		t.Errorf("unknown syntax: %+v, %v", s, ok)
	}
}

func TestIsStorageClass(t *testing.T) {
	tests := []struct {
		uid  string
		want bool
	}{
		{dict.CTImageStorage, true},
		{dict.UltrasoundMultiFrameImageStorageRetired, true},
		{dict.HangingProtocolStorage, true},
		{dict.LabelMapSegmentationStorage, true},
		{dict.RTBeamsDeliveryInstructionStorage, true},
		{dict.StoredPrintStorage, true},
		{"1.2.840.10008.5.1.4.1.1.999.1", true},
		{"1.3.12.2.1107.5.9.1", true},
		{dict.Verification, false},
		{dict.StorageCommitmentPushModel, false},
		{dict.MediaStorageDirectoryStorage, false},
		{dict.StudyRootQueryRetrieveInformationModelFind, false},
		{dict.ProtocolApprovalInformationModelFind, false},
		{dict.RepositoryQuery, false},
		{"1.2.840.10008.5.1.4.99", false},
		{"", false},
	}
	for _, tt := range tests {
		if got := dict.IsStorageClass(tt.uid); got != tt.want {
			t.Errorf("IsStorageClass(%s) = %v, want %v", tt.uid, got, tt.want)
		}
	}
	for _, uid := range dict.StorageClasses() {
		if !dict.IsStorageClass(uid) || dict.ClassName(uid) == "" {
			t.Errorf("%s: a storage class that is none, or has no name", uid)
		}
	}
	if n := len(dict.StorageClasses()); n < 180 {
		t.Errorf("only %d storage classes", n)
	}
	if !dict.IsNonPatient(dict.ColorPaletteStorage) || dict.IsNonPatient(dict.CTImageStorage) {
		t.Error("non-patient classes")
	}
}

func BenchmarkImplicitVR(b *testing.B) {
	tags := []dict.Tag{dict.PatientName, dict.PixelData, dict.Rows, 0x00091010, dict.StudyInstanceUID, 0x60003000}
	for b.Loop() {
		for _, t := range tags {
			dict.ImplicitVR(t, false)
		}
	}
}
