package dicom

import (
	"io"

	"github.com/klauspost/compress/flate"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// Source gives the (inflated) bytes of a stored data set to whoever must read
// its cuts.
type Source = io.ReaderAt

// Convert writes the data set of h in another uncompressed syntax (deflated
// allowed), reading cuts from src in bounded pieces. Group lengths and
// (FFFC,FFFC) are dropped, values are swapped by VR (8-bit OW too, UN never),
// odd lengths are padded, values too long for their VR and VRs nobody knows
// become UN; sequences and items get undefined length. What is encapsulated, or
// shall be, is fault.Unsupported.
func (h *Header) Convert(w io.Writer, src Source, to dict.TransferSyntax) error {
	if !h.Syntax.Uncompressed() || !to.Uncompressed() {
		return fault.New(fault.Unsupported, "dicom: convert from %s to %s", h.Syntax.UID, to.UID)
	}
	if !to.Deflated {
		return h.rewrite(w, src, to, false)
	}
	counted := &countWriter{w: w}
	deflater, err := flate.NewWriter(counted, flate.DefaultCompression)
	if err != nil {
		return err
	}
	if err := h.rewrite(deflater, src, inflated(to), false); err != nil {
		return err
	}
	if err := deflater.Close(); err != nil {
		return err
	}
	if counted.n&1 == 1 { // PS3.5 §A.5
		_, err = counted.Write([]byte{0})
	}
	return err
}

// Convertible tells what Convert would say of the data set, without a look at
// its cut values: a conversion that fails on the way has promised bytes already.
func (h *Header) Convertible(to dict.TransferSyntax) error {
	if !h.Syntax.Uncompressed() || !to.Uncompressed() {
		return fault.New(fault.Unsupported, "dicom: convert from %s to %s", h.Syntax.UID, to.UID)
	}
	e := encoder{w: io.Discard, to: inflated(to), dry: true}
	return e.dataset(h.Dataset, false)
}

// Canonical writes the canonical form by which two uncompressed encodings of
// one instance are the same: explicit little endian, no group lengths, no
// trailing padding, sequences of undefined length (DESIGN §2). VRs are the
// dictionary's (UN where it has none, OW for pixel data), because implicit VR
// cannot tell others. The form is for comparing, not for sending.
func (h *Header) Canonical(w io.Writer, src Source) error {
	if !h.Syntax.Uncompressed() {
		return fault.New(fault.Unsupported, "dicom: canonical form of %s", h.Syntax.UID)
	}
	to, _ := dict.Syntax(dict.ExplicitLittleEndian)
	return h.rewrite(w, src, to, true)
}

func (h *Header) rewrite(w io.Writer, src Source, to dict.TransferSyntax, canonical bool) error {
	e := encoder{w: w, src: src, to: to, canonical: canonical, b: make([]byte, 0, flushSize+4<<10)}
	if err := e.dataset(h.Dataset, false); err != nil {
		return err
	}
	return e.flush(1)
}

// countWriter counts what is written.
type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// readAt fills b from the source. An early end means that source and header do
// not belong together, or that the source lost bytes.
func readAt(src Source, b []byte, offset int64) error {
	n, err := src.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if err == nil || errIsEnd(err) {
		return fault.New(fault.Corrupt, "dicom: source ends before byte %d", offset+int64(len(b)))
	}
	return err
}
