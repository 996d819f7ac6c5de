package seal

import (
	"bytes"
	"testing"

	"pelago/cluster/fault"
)

func TestAVerifierTakesWholeSegmentsInTheirPlaceOnly(t *testing.T) {
	key := NewKey()
	plain := bytes.Repeat([]byte("pelago"), 3*SegmentBytes/6)
	var out bytes.Buffer
	w := NewWriter(&out, key)
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sealed := out.Bytes()
	size := int64(len(sealed))
	v, err := NewVerifier(size, key)
	if err != nil {
		t.Fatal(err)
	}
	scratch := make([]byte, SegmentBytes)
	check := func(first int64, b []byte) error { return v.Verify(first, bytes.Clone(b), scratch) }
	segments := (size + sealedBytes - 1) / sealedBytes
	for first := segments - 1; first >= 0; first-- { // in any order, to the end
		if err := check(first, sealed[first*sealedBytes:]); err != nil {
			t.Errorf("from segment %d: %v", first, err)
		}
	}
	changed := bytes.Clone(sealed)
	changed[sealedBytes+5] ^= 1
	for _, test := range []struct {
		name  string
		first int64
		b     []byte
		kind  fault.Kind
	}{
		{"changed", 0, changed, fault.Corrupt},
		{"another place", 1, sealed[:sealedBytes], fault.Corrupt},
		{"half a segment", 0, sealed[:sealedBytes/2], fault.Invalid},
		{"before the beginning", -1, sealed[:sealedBytes], fault.Invalid},
		{"behind the end", segments, sealed[:sealedBytes], fault.Invalid},
		{"over the end", segments - 1, append(bytes.Clone(sealed[(segments-1)*sealedBytes:]), 0), fault.Invalid},
	} {
		if err := check(test.first, test.b); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v, want %v", test.name, err, test.kind)
		}
	}
	other, err := NewVerifier(size, NewKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Verify(0, sealed, scratch); !fault.Is(err, fault.Corrupt) {
		t.Errorf("another key: %v", err)
	}
	if _, err := NewVerifier(5, key); !fault.Is(err, fault.Corrupt) {
		t.Errorf("no ciphertext's size: %v", err)
	}
}
