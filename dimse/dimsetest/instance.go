package dimsetest

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// UIDs that tests need.
const (
	Verification       = "1.2.840.10008.1.1"
	CTImageStorage     = "1.2.840.10008.5.1.4.1.1.2"
	MRImageStorage     = "1.2.840.10008.5.1.4.1.1.4"
	CRImageStorage     = "1.2.840.10008.5.1.4.1.1.1"
	SecondaryCapture   = "1.2.840.10008.5.1.4.1.1.7"
	MultiFrameGrayWord = "1.2.840.10008.5.1.4.1.1.7.3"

	ImplicitLittleEndian         = "1.2.840.10008.1.2"
	ExplicitLittleEndian         = "1.2.840.10008.1.2.1"
	DeflatedExplicitLittleEndian = "1.2.840.10008.1.2.1.99"
	ExplicitBigEndian            = "1.2.840.10008.1.2.2"

	implementation = "1.2.826.0.1.3680043.10.9999"
)

// Instance is a synthetic image: 16-bit grey, native. Its zero value with
// UIDs, rows and columns is complete.
type Instance struct {
	SOPClassUID, SOPInstanceUID         string
	StudyInstanceUID, SeriesInstanceUID string
	PatientID                           string
	PatientName                         Name
	BirthDate, Sex                      string // DA; M, F, O
	StudyDate, StudyTime                string // DA, TM
	AccessionNumber, StudyID            string
	StudyDescription, SeriesDescription string
	Modality                            string
	SeriesNumber, InstanceNumber        int
	Rows, Columns, Frames               int    // Frames 0: a single frame without the attribute
	Syntax                              string // "": explicit little endian
	Seed                                uint64 // of the pixels
}

// CT returns an image of 512 × 512 pixels, 526 KB, the nth of its series. All
// images of a seed are one series.
func CT(seed uint64, n int) Instance {
	return Instance{
		SOPClassUID: CTImageStorage, SOPInstanceUID: uid(seed, 3, n),
		StudyInstanceUID: uid(seed, 1, 0), SeriesInstanceUID: uid(seed, 2, 0),
		PatientID: fmt.Sprintf("P%06d", seed), PatientName: Names[0], Modality: "CT",
		StudyDate: "20260102", StudyTime: "030405", StudyID: "1", SeriesNumber: 1, InstanceNumber: n + 1,
		Rows: 512, Columns: 512, Seed: seed<<20 + uint64(n),
	}
}

// uid returns a UID of a seed, a level and a number.
func uid(seed uint64, level, n int) string {
	return fmt.Sprintf("1.2.826.0.1.3680043.10.9998.%d.%d.%d", seed, level, n)
}

// File returns the instance as a Part 10 file (PS3.10 §7).
func (i Instance) File() []byte {
	meta := writer{explicit: true, order: binary.LittleEndian}
	meta.element(0x00020001, "OB", "\x00\x01")
	meta.element(0x00020002, "UI", i.SOPClassUID)
	meta.element(0x00020003, "UI", i.SOPInstanceUID)
	meta.element(0x00020010, "UI", i.syntax())
	meta.element(0x00020012, "UI", implementation)
	b := append(make([]byte, 128), "DICM"...)
	b = binary.LittleEndian.AppendUint16(b, 0x0002)
	b = append(b, 0, 0, 'U', 'L', 4, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(meta.b.Len()))
	b = append(b, meta.b.Bytes()...)
	return append(b, i.Dataset()...)
}

// syntax returns the transfer syntax.
func (i Instance) syntax() string {
	if i.Syntax == "" {
		return ExplicitLittleEndian
	}
	return i.Syntax
}

// Dataset returns the data set, encoded in the instance's syntax.
func (i Instance) Dataset() []byte {
	w := writer{explicit: i.syntax() != ImplicitLittleEndian, order: binary.LittleEndian}
	if i.syntax() == ExplicitBigEndian {
		w.order = binary.BigEndian
	}
	i.write(&w)
	if i.syntax() != DeflatedExplicitLittleEndian {
		return w.b.Bytes()
	}
	var packed bytes.Buffer
	z, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	z.Write(w.b.Bytes()) // a bytes.Buffer does not fail
	z.Close()
	if packed.Len()&1 == 1 { // PS3.5 §A.5
		packed.WriteByte(0)
	}
	return packed.Bytes()
}

// write writes the elements in tag order.
func (i Instance) write(w *writer) {
	if i.PatientName.Charset != "" {
		w.element(0x00080005, "CS", i.PatientName.Charset)
	}
	w.element(0x00080008, "CS", `ORIGINAL\PRIMARY\AXIAL`)
	w.element(0x00080016, "UI", i.SOPClassUID)
	w.element(0x00080018, "UI", i.SOPInstanceUID)
	w.element(0x00080020, "DA", i.StudyDate)
	w.element(0x00080030, "TM", i.StudyTime)
	w.element(0x00080050, "SH", i.AccessionNumber)
	w.element(0x00080060, "CS", i.Modality)
	w.element(0x00080070, "LO", "Pelago synthetic")
	w.element(0x00080090, "PN", "")
	if i.StudyDescription != "" {
		w.element(0x00081030, "LO", i.StudyDescription)
	}
	if i.SeriesDescription != "" {
		w.element(0x0008103E, "LO", i.SeriesDescription)
	}
	w.element(0x00100010, "PN", i.PatientName.Bytes)
	w.element(0x00100020, "LO", i.PatientID)
	w.element(0x00100030, "DA", i.BirthDate)
	w.element(0x00100040, "CS", i.Sex)
	w.element(0x0020000D, "UI", i.StudyInstanceUID)
	w.element(0x0020000E, "UI", i.SeriesInstanceUID)
	w.element(0x00200010, "SH", i.StudyID)
	w.element(0x00200011, "IS", fmt.Sprint(i.SeriesNumber))
	w.element(0x00200013, "IS", fmt.Sprint(i.InstanceNumber))
	w.element(0x00200032, "DS", fmt.Sprintf(`-125\-125\%d`, i.InstanceNumber))
	w.element(0x00200037, "DS", `1\0\0\0\1\0`)
	w.short(0x00280002, 1)
	w.element(0x00280004, "CS", "MONOCHROME2")
	if i.Frames > 0 {
		w.element(0x00280008, "IS", fmt.Sprint(i.Frames))
	}
	w.short(0x00280010, uint16(i.Rows))
	w.short(0x00280011, uint16(i.Columns))
	w.element(0x00280030, "DS", `0.488281\0.488281`)
	w.short(0x00280100, 16)
	w.short(0x00280101, 12)
	w.short(0x00280102, 11)
	w.short(0x00280103, 0)
	w.element(0x00281050, "DS", "1024")
	w.element(0x00281051, "DS", "2048")
	w.element(0x00281052, "DS", "-1024")
	w.element(0x00281053, "DS", "1")
	w.element(0x7FE00010, "OW", string(i.pixels(w.order)))
}

// pixels returns 12-bit pixels that look like a slice to a compressor: smooth,
// with a little noise. Rows × columns × frames of them.
func (i Instance) pixels(order binary.AppendByteOrder) []byte {
	noise := rand.New(rand.NewPCG(i.Seed, 0x9E3779B97F4A7C15))
	count := i.Rows * i.Columns * max(i.Frames, 1)
	b := make([]byte, 0, 2*count)
	var bits uint64
	for at := range count {
		if at%16 == 0 {
			bits = noise.Uint64()
		}
		x, y := at%max(i.Columns, 1)-i.Columns/2, at/max(i.Columns, 1)%max(i.Rows, 1)-i.Rows/2
		v := 40
		if x*x+y*y < i.Rows*i.Columns/5 { // the body
			v = 1000 + x + y/2
		}
		b = order.AppendUint16(b, uint16(v+int(bits&7))&0x0FFF)
		bits >>= 4
	}
	return b
}

// writer encodes elements in a transfer syntax.
type writer struct {
	b        bytes.Buffer
	explicit bool
	order    binary.AppendByteOrder
}

// short writes a US element.
func (w *writer) short(tag uint32, v uint16) {
	w.element(tag, "US", string(w.order.AppendUint16(nil, v)))
}

// element writes an element whose value is in the writer's byte order already,
// padded to even length (PS3.5 §7.1).
func (w *writer) element(tag uint32, vr, value string) {
	b := w.order.AppendUint16(nil, uint16(tag>>16))
	b = w.order.AppendUint16(b, uint16(tag))
	length := uint32(len(value) + len(value)&1)
	switch {
	case !w.explicit:
		b = w.order.AppendUint32(b, length)
	case vr == "OB" || vr == "OW":
		b = append(append(b, vr...), 0, 0)
		b = w.order.AppendUint32(b, length)
	default:
		b = w.order.AppendUint16(append(b, vr...), uint16(length))
	}
	w.b.Write(b)
	w.b.WriteString(value)
	if len(value)&1 == 1 {
		pad := byte(' ')
		if vr == "UI" || vr == "OB" {
			pad = 0
		}
		w.b.WriteByte(pad)
	}
}
