package dicom

import (
	"bufio"
	"errors"
	"io"

	"github.com/klauspost/compress/flate"

	"pelago/cluster/fault"
)

// maxRatio is the most that deflate can expand (RFC 1951: 258 bytes in two
// bits, less the overhead); what claims more is no deflate stream.
const maxRatio = 1032

// NewInflater returns the data set of a deflated transfer syntax (PS3.5 §A.5)
// inflated. Its errors are fault.Invalid for a broken stream, for more than
// limits.Inflated bytes and for more bytes after the stream than padding and a
// checksum take; errors of r are passed on. The zlib header that some writers
// put before the stream is taken.
func NewInflater(r io.Reader, limits Limits) io.Reader {
	limits = limits.filled()
	in := &counter{r: r}
	buffered := bufio.NewReaderSize(in, 16<<10)
	return &inflater{in: in, buffered: buffered, left: limits.Inflated}
}

// counter counts what was read and remembers the source's own error.
type counter struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	return n, err
}

type inflater struct {
	in       *counter
	buffered *bufio.Reader
	flate    io.Reader
	out      int64
	left     int64 // of the limit
	err      error
}

func (i *inflater) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	if i.flate == nil {
		i.open()
	}
	n, err := i.flate.Read(p)
	i.out += int64(n)
	i.left -= int64(n)
	switch {
	case i.left < 0:
		err = fault.New(fault.Invalid, "dicom: deflated data set inflates beyond the limit")
	case i.out > maxRatio*(i.in.n+16):
		err = fault.New(fault.Invalid, "dicom: deflated data set inflates more than deflate can")
	case errors.Is(err, io.EOF):
		err = i.end()
	case err != nil && i.in.err != nil:
		err = i.in.err
	case err != nil:
		err = fault.New(fault.Invalid, "dicom: deflated data set is broken: %w", err)
	}
	i.err = err
	if err != nil && !errors.Is(err, io.EOF) {
		n = 0
	}
	return n, err
}

// open skips a zlib header (RFC 1950 §2.2). Its first byte would begin a stored
// block, whose length is given twice; if that does not hold, it is a header.
func (i *inflater) open() {
	if b, err := i.buffered.Peek(5); err == nil &&
		b[0]&0x0F == 8 && b[0]>>4 <= 7 && (uint(b[0])<<8|uint(b[1]))%31 == 0 && b[1]&0x20 == 0 &&
		(b[1]^b[3] != 0xFF || b[2]^b[4] != 0xFF) {
		i.buffered.Discard(2) // peeked: it is there
	}
	i.flate = flate.NewReader(i.buffered)
}

// maxTrailer is how many bytes may follow the stream: one of padding (PS3.5
// §A.5), and the checksum and length that writers add who think of gzip or zlib.
const maxTrailer = 8 + 1

// end checks what follows the stream.
func (i *inflater) end() error {
	for range maxTrailer + 1 {
		if _, err := i.buffered.ReadByte(); err != nil {
			return err // io.EOF among them
		}
	}
	return fault.New(fault.Invalid, "dicom: bytes after the deflated data set")
}
