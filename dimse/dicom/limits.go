package dicom

import "pelago/dimse/dict"

// Limits bounds what a data set may ask for. A field that is zero takes its
// value from [DefaultLimits].
type Limits struct {
	HeaderBytes int64  // everything but what is cut out; 64 MiB by default
	Depth       int    // nested sequences; 64
	Elements    int    // elements of all levels; 1 Mi
	Fragments   int    // pixel data fragments; 4 Mi
	InlineBytes uint32 // longest value that stays in a header; 1 KiB for bulk VRs and UN, 64 KiB for others
	Inflated    int64  // bytes that a deflated data set may inflate to; 4 GiB, and at most 1,032 × what was read
}

// DefaultLimits are the limits that the node uses unless told otherwise.
var DefaultLimits = Limits{HeaderBytes: 64 << 20, Depth: 64, Elements: 1 << 20, Fragments: 4 << 20, Inflated: 4 << 30}

// The longest values that stay in a header where Limits.InlineBytes is zero.
const (
	inlineBulk  = 1 << 10
	inlineOther = 64 << 10
)

func (l Limits) filled() Limits {
	fill(&l.HeaderBytes, DefaultLimits.HeaderBytes)
	fill(&l.Depth, DefaultLimits.Depth)
	fill(&l.Elements, DefaultLimits.Elements)
	fill(&l.Fragments, DefaultLimits.Fragments)
	fill(&l.Inflated, DefaultLimits.Inflated)
	return l
}

func fill[T int | int64](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// cuts reports whether a value of defined length is left out of a header. The
// extended offset table stays in, whatever its length (bounded by
// HeaderBytes): without it frames cannot be found.
func (l *Limits) cuts(t dict.Tag, vr dict.VR, length uint32) bool {
	switch {
	case isPixelData(t):
		return true
	case t == dict.ExtendedOffsetTable, t == dict.ExtendedOffsetTableLengths:
		return false
	case l.InlineBytes > 0:
		return length > l.InlineBytes
	case length <= inlineBulk:
		return false
	}
	return vr.Bulk() || length > inlineOther
}

// isPixelData reports whether the tag is Pixel Data, Float Pixel Data or Double
// Float Pixel Data.
func isPixelData(t dict.Tag) bool {
	return t == dict.PixelData || t == dict.FloatPixelData || t == dict.DoubleFloatPixelData
}
