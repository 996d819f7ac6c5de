package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// newUID makes a UID from a random UUID (PS3.5 §B.2).
func newUID() (string, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return "2.25." + new(big.Int).SetBytes(b).String(), nil
}

const (
	phantomSize = 512
	ctImage     = "1.2.840.10008.5.1.4.1.1.2"
)

// writePhantom writes a CT series of a ball in a cylinder, of the patient of a
// number: images for machines without real ones, and such as every client sends
// as they are.
func writePhantom(dir string, patient, slices int) error {
	study, err := newUID()
	if err != nil {
		return err
	}
	series, err := newUID()
	if err != nil {
		return err
	}
	syntax, _ := dict.Syntax(dict.ExplicitLittleEndian)
	for n := range slices {
		sop, err := newUID()
		if err != nil {
			return err
		}
		ds := phantomHeader(study, series, sop, patient, n+1)
		pixels := phantomPixels(float64(n)/float64(slices)*2 - 1)
		ds.Put(dicom.Element{Tag: dict.PixelData, VR: dict.OW, Value: pixels})
		file := dicom.AppendMeta(nil, dicom.Meta{Class: ctImage, Instance: sop, Syntax: syntax.UID})
		if file, err = ds.Encode(file, syntax); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("phantom-%03d.dcm", n+1)), file, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func phantomHeader(study, series, sop string, patient, number int) *dicom.Dataset {
	ds := dicom.NewDataset()
	for _, text := range []struct {
		tag   dict.Tag
		vr    dict.VR
		value string
	}{
		{dict.SOPClassUID, dict.UI, ctImage}, {dict.SOPInstanceUID, dict.UI, sop},
		{dict.StudyInstanceUID, dict.UI, study}, {dict.SeriesInstanceUID, dict.UI, series},
		{dict.StudyDate, dict.DA, "20260102"}, {dict.StudyTime, dict.TM, "101500"},
		{dict.AccessionNumber, dict.SH, fmt.Sprint("DEMO-", patient)}, {dict.Modality, dict.CS, "CT"},
		{dict.StudyDescription, dict.LO, "Phantom"}, {dict.SeriesDescription, dict.LO, "Ball in a cylinder"},
		{dict.PatientName, dict.PN, "Phantom^Ännchen"}, {dict.PatientID, dict.LO, fmt.Sprint("PHANTOM-", patient)},
		{dict.PatientBirthDate, dict.DA, "19700101"}, {dict.PatientSex, dict.CS, "O"},
		{dict.StudyID, dict.SH, "1"}, {dict.SeriesNumber, dict.IS, "1"}, {dict.InstanceNumber, dict.IS, fmt.Sprint(number)},
		{dict.PhotometricInterpretation, dict.CS, "MONOCHROME2"},
		{dict.RescaleIntercept, dict.DS, "-1024"}, {dict.RescaleSlope, dict.DS, "1"},
		{dict.WindowCenter, dict.DS, "40"}, {dict.WindowWidth, dict.DS, "400"},
		{dict.PixelSpacing, dict.DS, "0.7\\0.7"}, {dict.SliceThickness, dict.DS, "2"},
	} {
		ds.Set(text.tag, text.vr, text.value)
	}
	ds.Set(dict.PixelSpacing, dict.DS, "0.7", "0.7")
	for tag, value := range map[dict.Tag]uint64{
		dict.SamplesPerPixel: 1, dict.Rows: phantomSize, dict.Columns: phantomSize,
		dict.BitsAllocated: 16, dict.BitsStored: 12, dict.HighBit: 11, dict.PixelRepresentation: 0,
	} {
		ds.SetUint(tag, dict.US, value)
	}
	return ds
}

// phantomPixels draws the slice at height z of −1 to 1, with the noise that a
// scanner would have.
func phantomPixels(z float64) []byte {
	out := make([]byte, 0, phantomSize*phantomSize*2)
	noise := uint32(2463534242)
	for y := range phantomSize {
		for x := range phantomSize {
			u, v := float64(x)/phantomSize*2-1, float64(y)/phantomSize*2-1
			value := 24.0 // air
			switch r := math.Hypot(u, v); {
			case r*r+z*z < 0.16:
				value = 1164
			case r < 0.8:
				value = 1064
			}
			noise ^= noise << 13
			noise ^= noise >> 17
			noise ^= noise << 5
			out = binary.LittleEndian.AppendUint16(out, uint16(value+float64(noise%24)))
		}
	}
	return out
}
