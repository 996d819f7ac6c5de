package input

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Storage classes that are made here.
const (
	CTImageStorage = "1.2.840.10008.5.1.4.1.1.2"
	MultiFrameWord = "1.2.840.10008.5.1.4.1.1.7.3" // multi-frame grayscale word secondary capture
)

// Instance is one image of a study: 16-bit grey, native, explicit little endian.
type Instance struct {
	Study          Study
	Class          string // "": the study's
	Series, Number int    // from 1
	Rows, Columns  int
	Frames         int  // 0: a single frame without the attribute
	Noise          bool // pixels of nothing but noise, which hardly shrink
}

// UID is the SOP Instance UID.
func (i Instance) UID() string { return i.Study.InstanceUID(i.Series, i.Number) }

func (i Instance) class() string {
	if i.Class != "" {
		return i.Class
	}
	return i.Study.Class
}

// Header returns the data set without its pixels: what a scanner of today
// writes, some sixty attributes.
func (i Instance) Header() *dicom.Dataset {
	s, d := i.Study, dicom.NewDataset()
	for _, a := range []struct {
		tag   dict.Tag
		value string
	}{
		{dict.SpecificCharacterSet, "ISO_IR 192"}, {dict.ImageType, `ORIGINAL\PRIMARY\AXIAL`},
		{dict.SOPClassUID, i.class()}, {dict.SOPInstanceUID, i.UID()},
		{dict.StudyDate, s.Date}, {dict.SeriesDate, s.Date}, {dict.AcquisitionDate, s.Date}, {dict.ContentDate, s.Date},
		{dict.StudyTime, s.Time}, {dict.SeriesTime, s.Time}, {dict.AcquisitionTime, s.Time}, {dict.ContentTime, s.Time},
		{dict.AccessionNumber, s.Accession}, {dict.Modality, s.Modality}, {dict.Manufacturer, "SYNTHETIC"},
		{dict.InstitutionName, "North Hospital"}, {dict.ReferringPhysicianName, s.Referr}, {dict.StationName, s.Modality + "01"},
		{dict.StudyDescription, s.Description}, {dict.SeriesDescription, fmt.Sprintf("%s %d", s.Description, i.Series)},
		{dict.ManufacturerModelName, "Benchmark 1"}, {dict.PatientName, s.Name}, {dict.PatientID, s.PatientID},
		{dict.PatientBirthDate, s.BirthDate}, {dict.PatientSex, s.Sex}, {dict.PatientAge, "050Y"}, {dict.PatientWeight, "70"},
		{dict.BodyPartExamined, "CHEST"}, {dict.SliceThickness, "1.25"}, {dict.KVP, "120"}, {dict.ProtocolName, s.Description},
		{dict.ReconstructionDiameter, "360"}, {dict.GantryDetectorTilt, "0"}, {dict.TableHeight, "160"}, {dict.ExposureTime, "700"},
		{dict.XRayTubeCurrent, "250"}, {dict.ConvolutionKernel, "STANDARD"}, {dict.PatientPosition, "HFS"},
		{dict.StudyInstanceUID, s.UID}, {dict.SeriesInstanceUID, s.SeriesUID(i.Series)}, {dict.StudyID, s.StudyID},
		{dict.SeriesNumber, fmt.Sprint(i.Series)}, {dict.AcquisitionNumber, "1"}, {dict.InstanceNumber, fmt.Sprint(i.Number)},
		{dict.ImagePositionPatient, fmt.Sprintf(`-180\-180\%.2f`, 1.25*float64(i.Number))}, {dict.ImageOrientationPatient, `1\0\0\0\1\0`},
		{dict.FrameOfReferenceUID, s.UID + ".4"}, {dict.SliceLocation, fmt.Sprintf("%.2f", 1.25*float64(i.Number))},
		{dict.SamplesPerPixel, "1"}, {dict.PhotometricInterpretation, "MONOCHROME2"},
		{dict.Rows, fmt.Sprint(i.Rows)}, {dict.Columns, fmt.Sprint(i.Columns)}, {dict.PixelSpacing, `0.703125\0.703125`},
		{dict.BitsAllocated, "16"}, {dict.BitsStored, "12"}, {dict.HighBit, "11"}, {dict.PixelRepresentation, "0"},
		{dict.WindowCenter, "1064"}, {dict.WindowWidth, "400"}, {dict.RescaleIntercept, "-1024"}, {dict.RescaleSlope, "1"},
	} {
		entry, _ := dict.Lookup(a.tag) // the tags are the dictionary's own
		d.Set(a.tag, entry.VR, a.value)
	}
	if i.Frames > 0 {
		d.Set(dict.NumberOfFrames, dict.IS, fmt.Sprint(i.Frames))
	}
	return d
}

// Bytes is the length of the pixel data.
func (i Instance) Bytes() int64 {
	return 2 * int64(i.Rows) * int64(i.Columns) * int64(max(i.Frames, 1))
}

// Write writes the instance as a Part 10 file, a frame at a time.
func (i Instance) Write(w io.Writer) error {
	syntax, _ := dict.Syntax(dict.ExplicitLittleEndian)
	b := dicom.AppendMeta(nil, dicom.Meta{Class: i.class(), Instance: i.UID(), Syntax: syntax.UID})
	b, err := i.Header().Encode(b, syntax)
	if err != nil {
		return err
	}
	n := uint32(i.Bytes())
	if i.Bytes() > 0xFFFFFFFE {
		return errors.New("native pixel data ends at 4 GB")
	}
	b = append(b, 0xE0, 0x7F, 0x10, 0x00, 'O', 'W', 0, 0, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	if _, err := w.Write(b); err != nil {
		return err
	}
	var frame []byte
	for f := range max(i.Frames, 1) {
		frame = i.appendFrame(frame[:0], f)
		if _, err := w.Write(frame); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile writes the instance into a folder and returns the file's size.
func (i Instance) WriteFile(dir string) (int64, error) {
	f, err := os.Create(filepath.Join(dir, i.UID()+".dcm"))
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = errors.Join(i.Write(w), w.Flush())
	info, statErr := f.Stat()
	if err = errors.Join(err, statErr, f.Close()); err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Frame returns the bytes of a frame, from 0.
func (i Instance) Frame(n int) []byte { return i.appendFrame(nil, n) }

func (i Instance) appendFrame(b []byte, n int) []byte {
	if i.Noise {
		return Noise(b, i.Rows, i.Columns, seed(i.UID(), n))
	}
	return Pixels(b, i.Rows, i.Columns, seed(i.UID(), n))
}
