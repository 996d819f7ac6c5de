package web

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
	"pelago/node/archive"
)

// grayImage is a synthetic 16-bit image of 4 × 2 pixels with the values 0, 100 … 700.
func grayImage(sop string) *dicom.Dataset {
	ds := synthetic("1.2.3", "1.2.3.4", sop)
	ds.SetUint(tagSamples, dict.US, 1)
	ds.Set(tagPhotometric, dict.CS, "MONOCHROME2")
	ds.SetUint(tagRows, dict.US, 2)
	ds.SetUint(tagColumns, dict.US, 4)
	ds.SetUint(tagBitsAllocated, dict.US, 16)
	ds.SetUint(tagBitsStored, dict.US, 12)
	ds.SetUint(tagHighBit, dict.US, 11)
	ds.SetUint(tagRepresentation, dict.US, 0)
	var pixels []byte
	for i := range 8 {
		pixels = binary.LittleEndian.AppendUint16(pixels, uint16(100*i))
	}
	ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OW, Value: pixels})
	return ds
}

// levels decodes a PNG answer to gray levels, row by row.
func (s *site) levels(path string) (got []uint8, size image.Point) {
	s.t.Helper()
	res := s.get(path, "image/png")
	img, err := png.Decode(bytes.NewReader(s.body(res, 200)))
	if err != nil {
		s.t.Fatal(err)
	}
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			got = append(got, color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y)
		}
	}
	return got, b.Size()
}

func TestRenderedGrayscalePipeline(t *testing.T) {
	s := newSite(t, Options{})
	windowed := grayImage("1.2.3.4.2")
	windowed.Set(tagWindowCenter, dict.DS, "350", "40")
	windowed.Set(tagWindowWidth, dict.DS, "701", "400")
	inverse := grayImage("1.2.3.4.3")
	inverse.Set(tagPhotometric, dict.CS, "MONOCHROME1")
	rescaled := grayImage("1.2.3.4.4")
	rescaled.Set(tagSlope, dict.DS, "2")
	rescaled.Set(tagIntercept, dict.DS, "-1000")
	signed := grayImage("1.2.3.4.5")
	signed.SetUint(tagRepresentation, dict.US, 1)
	signed.SetUint(tagBitsStored, dict.US, 10)
	signed.SetUint(tagHighBit, dict.US, 9)
	for _, test := range []struct {
		name, query string
		ds          *dicom.Dataset
		want        []uint8
	}{
		{"no window spans the values", "", grayImage("1.2.3.4.1"), []uint8{0, 36, 73, 109, 146, 182, 219, 255}},
		{"the image's own window", "", windowed, []uint8{0, 37, 73, 109, 146, 182, 219, 255}},
		{"MONOCHROME1 is inverted", "", inverse, []uint8{255, 219, 182, 146, 109, 73, 36, 0}},
		{"the window is of rescaled values", "?window=-300,1400,linear-exact", rescaled, []uint8{0, 36, 73, 109, 146, 182, 219, 255}},
		{"a window of the request", "?window=350,1,linear", windowed, []uint8{0, 0, 0, 0, 255, 255, 255, 255}},
		{"sigmoid", "?window=350,200,sigmoid", windowed, []uint8{0, 2, 12, 69, 186, 243, 253, 255}},
		{"10 stored bits, signed: 600 and 700 are below zero", "?window=0,1024,linear-exact", signed, []uint8{128, 152, 177, 202, 227, 252, 22, 47}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ref := s.putSet(test.ds)
			got, size := s.levels(instancePath(ref) + "/rendered" + test.query)
			if size != image.Pt(4, 2) || !bytes.Equal(got, test.want) {
				t.Errorf("%v %v, want %v", size, got, test.want)
			}
		})
	}
}

func TestRenderedColor(t *testing.T) {
	s := newSite(t, Options{})
	for i, test := range []struct {
		photometric string
		planar      uint64
		pixels      []byte
	}{
		{"RGB", 0, []byte{255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9}},
		{"RGB", 1, []byte{255, 0, 0, 9, 0, 255, 0, 9, 0, 0, 255, 9}},
		{"YBR_FULL", 0, []byte{76, 85, 255, 150, 44, 21, 29, 255, 107, 9, 128, 128}},
	} {
		ds := synthetic("1.2.3", "1.2.3.4", fmt.Sprintf("1.2.3.4.%d", i))
		ds.SetUint(tagSamples, dict.US, 3)
		ds.Set(tagPhotometric, dict.CS, test.photometric)
		ds.SetUint(tagPlanar, dict.US, test.planar)
		ds.SetUint(tagRows, dict.US, 2)
		ds.SetUint(tagColumns, dict.US, 2)
		ds.SetUint(tagBitsAllocated, dict.US, 8)
		ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: test.pixels})
		ref := s.putSet(ds)
		img, err := png.Decode(bytes.NewReader(s.body(s.get(instancePath(ref)+"/rendered", "image/png"), 200)))
		if err != nil {
			t.Fatal(err)
		}
		for j, want := range []color.RGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {9, 9, 9, 255}} {
			got := color.RGBAModel.Convert(img.At(j%2, j/2)).(color.RGBA)
			near := func(a, b uint8) bool { return int(a)-int(b) <= 2 && int(b)-int(a) <= 2 }
			if !near(got.R, want.R) || !near(got.G, want.G) || !near(got.B, want.B) {
				t.Errorf("%s planar %d, pixel %d: %v, want %v", test.photometric, test.planar, j, got, want)
			}
		}
	}
}

func TestRenderedViewport(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.putSet(grayImage("1.2.3.4.1"))
	path := instancePath(ref) + "/rendered?window=350,700,linear-exact&viewport="
	for query, want := range map[string]string{
		"8,4":           "(8,4) [0 0 36 36 73 73 109 109 0 0 36 36 73 73 109 109 146 146 182 182 219 219 255 255 146 146 182 182 219 219 255 255]",
		"2,2":           "(2,1) [91 164]", // the aspect ratio is kept
		"2,1,2,0,2,1":   "(2,1) [73 109]",
		"2,1,0,0,-2,1":  "(2,1) [36 0]",
		"4,2,0,0,4,-2":  "(4,2) [146 182 219 255 0 36 73 109]",
		"2,1,2,1,99,99": "(2,1) [219 255]",
	} {
		got, size := s.levels(path + query)
		if text := fmt.Sprintf("%v %v", size, got); text != want {
			t.Errorf("%s: %s, want %s", query, text, want)
		}
	}
	for _, bad := range []string{"viewport=1", "viewport=0,5", "viewport=9999,9999", "viewport=a,b", "viewport=5,5,NaN,0,1,1", "window=1", "window=1,0,linear", "window=1,1,cubic", "quality=0", "quality=101"} {
		s.body(s.get(instancePath(ref)+"/rendered?"+bad, ""), 400)
	}
	s.body(s.get(instancePath(ref)+"/rendered", "application/dicom"), 406)
	s.body(s.get(instancePath(ref)+"/frames/2/rendered", ""), 404)
	s.body(s.get(instancePath(ref)+"/frames/1,1/rendered", ""), 406)
	if _, size := s.levels("/wado?requestType=WADO&objectUID=" + ref.SOP + "&contentType=image/png&rows=4"); size != image.Pt(8, 4) {
		t.Errorf("WADO-URI %v", size)
	}
	res := s.get("/dicom-web/studies/1.2.3/thumbnail?accept=image/jpeg", "image/avif,image/webp,*/*;q=0.8")
	img, err := jpeg.Decode(bytes.NewReader(s.body(res, 200)))
	if err != nil || img.Bounds().Dx() != 128 {
		t.Errorf("%v %v", err, img)
	}
	s.body(s.get(instancePath(ref)+"/rendered", "", "If-None-Match", s.get(instancePath(ref)+"/rendered", "").Header.Get("ETag")), 304)
}

// TestRenderedOfEverySample shows what can be decoded and is told apart from what
// cannot, without a fault of ours.
func TestRenderedOfEverySample(t *testing.T) {
	rendered := 0
	everySample(t, func(t *testing.T, s *site, f samples.File, ref archive.Ref, _ []byte) {
		res := s.get(instancePath(ref)+"/thumbnail", "image/jpeg")
		switch res.StatusCode {
		case 200:
			if _, err := jpeg.Decode(bytes.NewReader(s.body(res, 200))); err != nil {
				t.Error(err)
			}
			rendered++
		case 404, 406, 400:
			s.body(res, res.StatusCode)
		default:
			s.body(res, 200)
		}
	})
	if rendered < 60 {
		t.Errorf("only %d samples were rendered", rendered)
	}
}

func TestLosslessFramesRenderAsTheOnesThatWereCompressed(t *testing.T) {
	native := newSite(t, Options{})
	want, _ := native.levels(instancePath(native.put(ctFolder+"CTImage.dcm")) + "/rendered")
	if len(want) != 512*512 {
		t.Fatalf("%d levels", len(want))
	}
	for _, file := range losslessFiles {
		s := newSite(t, Options{})
		if got, _ := s.levels(instancePath(s.put(ctFolder+file)) + "/rendered"); !bytes.Equal(got, want) {
			t.Errorf("%s and native differ", file)
		}
	}
}
