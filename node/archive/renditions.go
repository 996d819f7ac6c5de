package archive

import (
	"bytes"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// encodingTags are attributes that may differ between two encodings of one
// image without making them different images.
var encodingTags = map[dict.Tag]bool{
	dict.SpecificCharacterSet:                  true,
	dict.PhotometricInterpretation:             true,
	dict.PlanarConfiguration:                   true,
	dict.LossyImageCompression:                 true,
	dict.ExtendedOffsetTable:                   true,
	dict.ExtendedOffsetTableLengths:            true,
	dict.PixelData:                             true,
	dict.DataSetTrailingPadding:                true,
	dict.EncapsulatedPixelDataValueTotalLength: true,
}

// sameImage reports whether two instances, at least one of them encapsulated,
// are the same image: equal attributes, and pixels that decode to equal bytes.
func sameImage(one, other Instance) (bool, error) {
	d := Difference{}
	if err := d.fill(one, other); err != nil {
		return false, err
	}
	for _, tag := range d.Attributes {
		if !encodingTags[tag] && !tag.IsGroupLength() {
			return false, nil
		}
	}
	return !d.Pixels, nil
}

// samePixels compares the decoded pixels of two instances, frame by frame; two
// instances without pixels have the same. fault.Unsupported where an encoding
// has no decoder here or restores only an approximation.
func samePixels(one, other Instance) (bool, error) {
	left, right := one.Header().Dataset.Get(dict.PixelData), other.Header().Dataset.Get(dict.PixelData)
	if left == nil || right == nil {
		return left == nil && right == nil, nil
	}
	if one.Ref().Syntax == other.Ref().Syntax && left.Cut != nil && right.Cut != nil {
		return sameBytes(one, *left.Cut, other, *right.Cut)
	}
	a, err := newDecoder(one)
	if err != nil {
		return false, err
	}
	b, err := newDecoder(other)
	if err != nil {
		return false, err
	}
	if a.frames.Count != b.frames.Count {
		return false, nil
	}
	for n := 1; n <= a.frames.Count; n++ {
		p, err := a.frame(n)
		if err != nil {
			return false, err
		}
		q, err := b.frame(n)
		if err != nil {
			return false, err
		}
		if !bytes.Equal(p, q) {
			return false, nil
		}
	}
	return true, nil
}

// errNoDecoder is the answer for encodings that this node does not decode.
func errNoDecoder(syntax string) error {
	return fault.New(fault.Unsupported, "no lossless decoder for transfer syntax %s", syntax)
}
