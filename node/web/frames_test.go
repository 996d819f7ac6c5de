package web

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/archive"
)

// The Accept values of OHIF 3 for frames: quoted, and with
// omitQuotationForMultipartRequest.
const (
	ohifQuoted   = `multipart/related; type="application/octet-stream"; transfer-syntax=*`
	ohifUnquoted = `multipart/related; type=application/octet-stream; transfer-syntax=*`
)

func TestEverySampleSendsTheFramesThatItsTableTells(t *testing.T) {
	everySample(t, func(t *testing.T, s *site, f samples.File, ref archive.Ref, data []byte) {
		k := s.memory.instances[0]
		frames, err := k.header.Frames()
		if err != nil {
			s.body(s.get(instancePath(ref)+"/frames/1", ohifQuoted), 404)
			return
		}
		open := &openKept{memory: s.memory, kept: k}
		src, err := open.Values()
		if err != nil {
			t.Fatal(err)
		}
		count := min(frames.Count, 5)
		var list []string
		var want [][]byte
		for n := 1; n <= count; n++ {
			b, err := frames.ReadFrame(nil, src, n)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, b)
			list = append(list, fmt.Sprint(n))
		}
		syntax := ref.Syntax
		if s, _ := dict.Syntax(syntax); !s.Encapsulated && !s.BigEndian {
			syntax = dict.ExplicitLittleEndian
		}
		for _, accept := range []string{ohifQuoted, ohifUnquoted} {
			res := s.get(instancePath(ref)+"/frames/"+strings.Join(list, ","), accept)
			parts := s.parts(res, 200)
			if len(parts) != count {
				t.Fatalf("%d parts, want %d", len(parts), count)
			}
			for i, p := range parts {
				if p.body != string(want[i]) {
					t.Errorf("frame %d: %d bytes, want %d", i+1, len(p.body), len(want[i]))
				}
				if p.fields["content-type"] != "application/octet-stream; transfer-syntax="+syntax {
					t.Errorf("frame %d is %q", i+1, p.fields["content-type"])
				}
			}
		}
		last := fmt.Sprint(count)
		single := s.get(instancePath(ref)+"/frames/"+last, "application/octet-stream; transfer-syntax=*")
		if b := s.body(single, 200); !bytes.Equal(b, want[count-1]) || single.Header.Get("Content-Type") != "application/octet-stream; transfer-syntax="+syntax {
			t.Errorf("bare: %d bytes, %q", len(b), single.Header.Get("Content-Type"))
		}
		s.body(s.get(instancePath(ref)+fmt.Sprintf("/frames/%d", frames.Count+1), ohifQuoted), 404)
	})
}

func TestFrameRequests(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage.dcm")
	for list, status := range map[string]int{"0": 400, "x": 400, "1,": 400, "-1": 400, "1,2": 404, strings.Repeat("1,", maxFrames) + "1": 400, "1,1": 200} {
		s.body(s.get(instancePath(ref)+"/frames/"+list, ohifQuoted), status)
	}
	s.body(s.get(instancePath(ref)+"/frames/1", "image/jpeg"), 406)
	res := s.get(instancePath(ref)+"/frames/1", "")
	s.parts(res, 200)
	s.body(s.get(instancePath(ref)+"/frames/1", "", "If-None-Match", res.Header.Get("ETag")), 304)
	s.body(s.get(instancePath(ref)+"/frames/1,1", "", "If-None-Match", res.Header.Get("ETag")), 200)
}

func TestBigEndianFramesAreSwappedUnlessAskedForAsStored(t *testing.T) {
	s := newSite(t, Options{})
	big := s.put(ctFolder + "CTImage_BigEndianExplicit_1.2.840.10008.1.2.2.dcm")
	stored := s.parts(s.get(instancePath(big)+"/frames/1", ohifQuoted), 200)[0].body
	little := s.parts(s.get(instancePath(big)+"/frames/1", `multipart/related; type="application/octet-stream"`), 200)[0]
	if little.fields["content-type"] != "application/octet-stream; transfer-syntax="+dict.ExplicitLittleEndian || len(little.body) != len(stored) || little.body == stored {
		t.Fatalf("%q, %d and %d bytes", little.fields, len(little.body), len(stored))
	}
	for i := 0; i+1 < len(stored); i += 2 {
		if stored[i] != little.body[i+1] || stored[i+1] != little.body[i] {
			t.Fatalf("pixel %d is not swapped", i/2)
		}
	}
	other := newSite(t, Options{})
	ref := other.put(ctFolder + "CTImage.dcm")
	if got := other.parts(other.get(instancePath(ref)+"/frames/1", ohifQuoted), 200)[0].body; got != little.body {
		t.Error("the same image in little endian differs")
	}
	bulk := s.body(s.get(instancePath(big)+"/bulkdata/7FE00010", "application/octet-stream"), 200)
	if !strings.HasPrefix(string(bulk), little.body) {
		t.Error("bulk data is not little endian")
	}
}

func TestSwappedReaderAtEveryOffset(t *testing.T) {
	raw := make([]byte, 64)
	for i := range raw {
		raw[i] = byte(i)
	}
	for _, unit := range []int{2, 4, 8} {
		want := bytes.Clone(raw[8:56])
		swapBytes(want, unit)
		r := &swappedReader{src: bytes.NewReader(raw), from: 8, length: 48, unit: unit}
		for from := range 48 {
			for to := from + 1; to <= 48; to++ {
				got := make([]byte, to-from)
				if n, err := r.ReadAt(got, int64(8+from)); n != len(got) || err != nil || !bytes.Equal(got, want[from:to]) {
					t.Fatalf("unit %d, %d to %d: %d %v %x, want %x", unit, from, to, n, err, got, want[from:to])
				}
			}
		}
	}
}

func TestFrameTablesAreKept(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage.dcm")
	h, err := New(s.memory, nil, s.engine, Options{})
	if err != nil {
		t.Fatal(err)
	}
	inst, err := s.memory.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer inst.Close()
	a, err := h.frameTable(inst)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := h.frameTable(inst); err != nil || a != b {
		t.Errorf("%p %p %v", a, b, err)
	}
}

// encapsulatedSet returns explicit little endian bytes with pixel data of
// fragments, in a syntax that has them.
func encapsulatedSet(t testing.TB, ds *dicom.Dataset, fragments ...[]byte) []byte {
	b := encode(t, ds)
	b = append(b, 0xE0, 0x7F, 0x10, 0, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0)
	for _, f := range fragments {
		b = append(b, 0xFE, 0xFF, 0, 0xE0)
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(f))), f...)
	}
	return append(b, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0)
}

func (s *site) putBytes(syntax string, data []byte) archive.Ref {
	s.t.Helper()
	stored, err := s.memory.Store(s.t.Context(), archive.Incoming{Syntax: syntax, Body: bytes.NewReader(data)})
	if err != nil {
		s.t.Fatal(err)
	}
	return stored.Ref
}

func TestVideoIsBulkDataWithRanges(t *testing.T) {
	const mpeg4 = "1.2.840.10008.1.2.4.102"
	s := newSite(t, Options{})
	one, two := bytes.Repeat([]byte("abcdefgh"), 500), bytes.Repeat([]byte("12345678"), 500)
	ref := s.putBytes(mpeg4, encapsulatedSet(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5"), one, two))
	whole := string(one) + string(two)
	for _, path := range []string{"/bulkdata/7FE00010", "/bulkdata/7FE00010?accept=video/mp4", "/pixeldata?accept=video/mp4", "/rendered?accept=video/mp4"} {
		res := s.get(instancePath(ref)+path, "")
		if b := s.body(res, 200); string(b) != whole || !isType(res, "video/mp4") || res.Header.Get("Accept-Ranges") != "bytes" {
			t.Errorf("%s: %d bytes, %v", path, len(b), res.Header)
		}
	}
	for spec, want := range map[string]string{"bytes=3990-4009": whole[3990:4010], "bytes=-8": whole[7992:], "bytes=7999-": whole[7999:], "bytes=0-0": "a"} {
		res := s.get(instancePath(ref)+"/bulkdata/7FE00010", "video/*", "Range", spec)
		if b := s.body(res, 206); string(b) != want || res.Header.Get("Content-Range") == "" {
			t.Errorf("%s: %q, want %q", spec, b, want)
		}
	}
	s.body(s.get(instancePath(ref)+"/bulkdata/7FE00010", "", "Range", "bytes=9000-"), 416)
	parts := s.parts(s.get(instancePath(ref)+"/bulkdata/7FE00010", `multipart/related; type="video/mp4"; transfer-syntax=*`), 200)
	if len(parts) != 1 || parts[0].body != whole || parts[0].fields["content-type"] != "video/mp4; transfer-syntax="+mpeg4 {
		t.Errorf("%d parts, %q", len(parts), parts[0].fields)
	}
	s.body(s.get(instancePath(ref)+"/bulkdata/7FE00010", "image/png"), 406)
}

func TestEncapsulatedPDFIsServedAsOne(t *testing.T) {
	s := newSite(t, Options{})
	pdf := append([]byte("%PDF-1.4\n"), bytes.Repeat([]byte("x"), 4000)...) // odd length
	ds := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	ds.Set(tagDocumentType, dict.LO, "application/pdf")
	ds.SetUint(tagDocumentLength, dict.UL, uint64(len(pdf)))
	ds.Put(dicom.Element{Tag: tagDocument, VR: dict.OB, Value: append(bytes.Clone(pdf), 0)})
	ref := s.putSet(ds)
	for _, test := range []struct{ path, accept string }{
		{"/bulkdata/00420011", ""}, {"/bulkdata/00420011", "application/pdf"}, {"/bulkdata/00420011?accept=application/pdf", "*/*"},
		{"/rendered?accept=application/pdf", "*/*"},
	} {
		res := s.get(instancePath(ref)+test.path, test.accept)
		if b := s.body(res, 200); !bytes.Equal(b, pdf) || res.Header.Get("Content-Type") != "application/pdf" {
			t.Errorf("%s: %d bytes of %q", test.path, len(b), res.Header.Get("Content-Type"))
		}
	}
	if b := s.body(s.get(instancePath(ref)+"/bulkdata/00420011", "", "Range", "bytes=0-3"), 206); string(b) != "%PDF" {
		t.Errorf("%q", b)
	}
	parts := s.parts(s.get(instancePath(ref)+"/bulkdata/00420011", `multipart/related; type="application/octet-stream"`), 200)
	if len(parts) != 1 || parts[0].body != string(pdf) || parts[0].fields["content-type"] != typeOctets {
		t.Errorf("%q", parts[0].fields)
	}
}

func TestDocumentTypeOfAnInstanceIsNoHeaderInjection(t *testing.T) {
	for in, want := range map[string]string{
		"application/pdf": "application/pdf", "text/XML": "text/xml", "": "application/pdf",
		"model/stl; x=y": "model/stl", "a/b\r\nX: y": "application/pdf", "nothing": "application/pdf", "a/b/c": "application/pdf",
	} {
		if got := documentType(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestBulkDataOfEncapsulatedFrames(t *testing.T) {
	s := newSite(t, Options{})
	ds := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	ds.Set(0x00280008, dict.IS, "2")
	ref := s.putBytes("1.2.840.10008.1.2.4.90", encapsulatedSet(t, ds, []byte("frame1"), []byte("frame2")))
	parts := s.parts(s.get(instancePath(ref)+"/bulkdata/7FE00010", ""), 200)
	if len(parts) != 2 || parts[1].body != "frame2" || parts[1].fields["content-type"] != "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90" {
		t.Errorf("%q", parts)
	}
	s.body(s.get(instancePath(ref)+"/bulkdata/7FE00010", "application/octet-stream"), 406)
	for path, status := range map[string]int{"/bulkdata/00100020": 404, "/bulkdata/nothing": 400, "/bulkdata/00400275/1/00400009": 404, "/bulkdata/": 400} {
		s.body(s.get(instancePath(ref)+path, ""), status)
	}
}

func TestDamageWithinAValueCutsTheConnection(t *testing.T) {
	s := newSite(t, Options{})
	ds := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: make([]byte, 4<<20)})
	ref := s.putSet(ds)
	s.memory.read = func(_ string, at int64) error {
		if at > 2<<20 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	res := s.get(instancePath(ref)+"/bulkdata/7FE00010", "")
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("%d bytes look whole", len(b))
	}
	if e := s.events.last(t); e.Status != 0 {
		t.Errorf("%+v", e)
	}
}
