package web

import (
	"bytes"
	"compress/flate"
	"context"
	"strings"
	"testing"
	"time"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// losslessFiles hold the pixels of CTImage.dcm in the encodings that the node
// decodes.
var losslessFiles = []string{
	"CTImage_RLELossless_1.2.840.10008.1.2.5.dcm",
	"CTImage_JPEGProcess14_1.2.840.10008.1.2.4.57.dcm",
	"CTImage_JPEGProcess14SV1_1.2.840.10008.1.2.4.70.dcm",
}

// pixelsOf returns the pixel data of a Part 10 file, its data set and its
// transfer syntax.
func pixelsOf(t *testing.T, file []byte) (pixels []byte, ds *dicom.Dataset, syntax string) {
	t.Helper()
	meta, data := dataSetOf(t, file)
	known, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(data), known, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	e := h.Dataset.Get(dict.PixelData)
	if e == nil || e.Cut == nil {
		t.Fatal("no pixel data")
	}
	return data[e.Cut.Offset : e.Cut.Offset+e.Cut.Length], h.Dataset, meta.Syntax
}

// Clients that name no transfer syntax get explicit little endian where the node
// can make it (DESIGN §9), in every resource that has pixels.
func TestLosslessImagesAreDecodedForClientsThatNameNoSyntax(t *testing.T) {
	native := newSite(t, Options{})
	ref := native.put(ctFolder + "CTImage.dcm")
	want, _, _ := pixelsOf(t, native.body(native.get(instancePath(ref), "application/dicom"), 200))
	for _, file := range losslessFiles {
		t.Run(file, func(t *testing.T) {
			s := newSite(t, Options{})
			ref := s.put(ctFolder + file)
			path := instancePath(ref)

			pixels, ds, syntax := pixelsOf(t, s.body(s.get(path, "application/dicom"), 200))
			if !bytes.Equal(pixels, want) || syntax != dict.ExplicitLittleEndian {
				t.Errorf("instance in %s, pixels equal: %t", syntax, bytes.Equal(pixels, want))
			}
			if ds.Has(dict.ExtendedOffsetTable) || ds.String(dict.SOPInstanceUID) != ref.SOP {
				t.Error("the decoded data set is another one")
			}
			for _, to := range []string{dict.ImplicitLittleEndian, dict.ExplicitBigEndian, dict.DeflatedExplicitLittleEndian} {
				res := s.get(path, "application/dicom; transfer-syntax="+to)
				if meta, _ := dataSetOf(t, s.body(res, 200)); meta.Syntax != to {
					t.Errorf("asked for %s, got %s", to, meta.Syntax)
				}
			}
			stored := s.body(s.get(path, "application/dicom; transfer-syntax=*"), 200)
			if meta, _ := dataSetOf(t, stored); meta.Syntax != ref.Syntax {
				t.Errorf("* is answered in %s", meta.Syntax)
			}

			res := s.get(path+"/frames/1", `multipart/related; type="application/octet-stream"`)
			frames := s.parts(res, 200)
			if len(frames) != 1 || frames[0].body != string(want) || !strings.Contains(frames[0].fields["content-type"], dict.ExplicitLittleEndian) {
				t.Errorf("%d frames, the first as %s", len(frames), frames[0].fields["content-type"])
			}
			asStored := s.get(path+"/frames/1", `multipart/related; type=application/octet-stream; transfer-syntax=*`)
			frames = s.parts(asStored, 200)
			if frames[0].body == string(want) || !strings.Contains(frames[0].fields["content-type"], ref.Syntax) {
				t.Errorf("stored frames as %s", frames[0].fields["content-type"])
			}
			if asStored.Header.Get("ETag") == res.Header.Get("ETag") {
				t.Error("the two forms share an entity tag")
			}
			s.body(s.get(path+"/frames/2", ""), 404)
			if got := s.body(s.get(path+"/bulkdata/7FE00010", "application/octet-stream"), 200); !bytes.Equal(got, want) {
				t.Error("bulk data differ")
			}
			part := s.body(s.get(path+"/bulkdata/7FE00010", "application/octet-stream", "Range", "bytes=1001-2000"), 206)
			if !bytes.Equal(part, want[1001:2001]) {
				t.Error("a range of bulk data differs")
			}
		})
	}
}

// What does not decode goes as it is stored to those who take that, beside the
// others of its study; who names another syntax is told.
func TestAnImageThatDoesNotDecodeGoesAsItIsStored(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + losslessFiles[0])
	k := s.memory.instances[0]
	fragment := k.header.Fragments[0]
	k.data = bytes.Clone(k.data)
	copy(k.data[fragment.Offset:], []byte{99, 0, 0, 0}) // segments of an RLE frame that has two

	sent := s.parts(s.get(instancePath(ref), ""), 200)
	if len(sent) != 1 || !strings.Contains(sent[0].fields["content-type"], ref.Syntax) || !strings.HasSuffix(sent[0].body, string(k.data)) {
		t.Errorf("sent as %s", sent[0].fields["content-type"])
	}
	if frames := s.parts(s.get(instancePath(ref)+"/frames/1", ""), 200); !strings.Contains(frames[0].fields["content-type"], ref.Syntax) {
		t.Errorf("its frame as %s", frames[0].fields["content-type"])
	}
	s.body(s.get(instancePath(ref), "application/dicom; transfer-syntax="+dict.ExplicitLittleEndian), 406)
	s.body(s.get(instancePath(ref)+"/frames/1", "application/octet-stream; transfer-syntax="+dict.ExplicitLittleEndian), 406)
	s.body(s.get(instancePath(ref)+"/bulkdata/7FE00010", ""), 200)
}

// Pixels that are encapsulated although the transfer syntax is uncompressed
// cannot be converted: they go as they came, and take nobody with them.
func TestAnImageThatCannotBeConvertedGoesAsItIsStored(t *testing.T) {
	s := newSite(t, Options{})
	odd := encapsulatedSet(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5"), []byte("abcd"))
	s.putBytes(dict.ExplicitBigEndian, encodeBig(t, synthetic("1.2.3", "1.2.3.4", "1.2.3.4.6")))
	ref := s.putBytes(dict.DeflatedExplicitLittleEndian, deflate(t, odd))

	sent := s.parts(s.get("/dicom-web/studies/1.2.3", ""), 200)
	if len(sent) != 2 {
		t.Fatalf("%d instances", len(sent))
	}
	for i, want := range []string{dict.ExplicitLittleEndian, ref.Syntax} { // as they came
		if meta, _ := dataSetOf(t, []byte(sent[i].body)); meta.Syntax != want {
			t.Errorf("instance %d in %s, want %s", i, meta.Syntax, want)
		}
	}
	s.body(s.get(instancePath(ref), "application/dicom; transfer-syntax="+dict.ImplicitLittleEndian), 406)
	s.body(s.get(instancePath(ref), `multipart/related; type="application/dicom"; transfer-syntax=`+dict.ImplicitLittleEndian), 406)
}

func encodeBig(t *testing.T, ds *dicom.Dataset) []byte {
	t.Helper()
	big, _ := dict.Syntax(dict.ExplicitBigEndian)
	b, err := ds.Encode(nil, big)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func deflate(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if out.Len()%2 == 1 {
		out.WriteByte(0)
	}
	return out.Bytes()
}

// Decoded frames of all requests stay within their memory: who finds none waits
// for a while and is told to come again.
func TestDecodingWaitsForMemory(t *testing.T) {
	s := newSite(t, Options{Limits: Limits{Decoded: 1 << 20, Wait: 10 * time.Millisecond}})
	s.put(ctFolder + losslessFiles[2])
	h := s.server.Config.Handler.(*Handler)
	ref := s.memory.instances[0].ref // with its number
	inst, err := s.memory.Open(context.Background(), ref)
	if err != nil {
		t.Fatal(err)
	}
	held, err := h.decode(context.Background(), inst, 1)
	if err != nil {
		t.Fatal(err)
	}
	if res := s.get(instancePath(ref), ""); res.Header.Get("Retry-After") == "" {
		t.Error("no word of when to come again")
	} else {
		s.body(res, 503)
	}
	s.body(s.get(instancePath(ref), "application/dicom; transfer-syntax=*"), 200)
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	s.body(s.get(instancePath(ref), ""), 200)
}
