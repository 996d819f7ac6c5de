package pack

import "pelago/cluster/fault"

const (
	// ChunkBytes is the most a chunk holds of an instance. Rows of samples are
	// never cut, so chunks of samples are a little smaller.
	ChunkBytes = 1 << 20
	// maxRowBytes: longer rows are general bytes.
	maxRowBytes = ChunkBytes
	// minSampled is how many bytes of samples are worth a chunk of their own;
	// fewer compress better together with the header around them.
	minSampled = 4 << 10
)

// Chunk is a run of an instance, compressed on its own so that a range reads
// few bytes.
type Chunk struct {
	Offset     int64 // in the instance
	Length     int64 // in the instance
	At         int64 // in the pack's plaintext
	Compressed int64
	Filter     byte
	Samples    Samples // the instance's; zero for general bytes
}

// check refuses what no Writer makes.
func (c *Chunk) check() error {
	ok := c.Offset >= 0 && c.At >= 0 && c.Length > 0 && c.Length <= ChunkBytes &&
		c.Compressed > 0 && c.Compressed <= c.Length && c.Filter < filters
	switch {
	case !ok:
	case c.Filter == filterStored:
		ok = c.Compressed == c.Length
	case sampled(c.Filter):
		ok = c.Samples.usable(1<<62) && c.Length%int64(c.Samples.rowBytes()) == 0
	}
	if !ok {
		return fault.New(fault.Corrupt, "pack: impossible chunk at %d", c.At)
	}
	return nil
}

// run is a planned chunk: where it lies, and whether it is rows of samples.
type run struct {
	offset, length int64
	sampled        bool
}

// plan yields the runs of an instance of size bytes: the header, the rows of
// samples, the rest.
func plan(size int64, s Samples, effort Effort, yield func(run) error) error {
	from, to := size, size // the rows
	if effort != Store && s.Length >= minSampled && s.usable(size) {
		from = s.Offset
		to = from + s.Length/int64(s.rowBytes())*int64(s.rowBytes())
	}
	for at := int64(0); at < size; {
		r := run{offset: at}
		switch {
		case at < from:
			r.length = min(ChunkBytes, from-at)
		case at < to:
			rows := int64(ChunkBytes / s.rowBytes())
			r.length, r.sampled = min(rows*int64(s.rowBytes()), to-at), true
		default:
			r.length = min(ChunkBytes, size-at)
		}
		if err := yield(r); err != nil {
			return err
		}
		at += r.length
	}
	return nil
}
