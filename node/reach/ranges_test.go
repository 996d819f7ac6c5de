package reach

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"pelago/cluster/fault"
)

// rangesOf writes its ranges by itself, up to a place where it fails.
type rangesOf struct {
	*bytes.Reader
	until int64
	err   error
}

func (r rangesOf) WriteRange(w io.Writer, off, length int64) error {
	if r.err == nil && off+length > r.Size() {
		return io.ErrUnexpectedEOF
	}
	if r.err != nil {
		length = min(length, max(0, r.until-off))
	}
	if _, err := io.Copy(w, io.NewSectionReader(r.Reader, off, length)); err != nil {
		return err
	}
	return r.err
}

// endsOf fails as a table does that ends early.
type endsOf struct{ err error }

func (e endsOf) ReadAt([]byte, int64) (int, error) { return 0, e.err }

func TestOnlyAnEndAloneIsTheEnd(t *testing.T) {
	for _, test := range []struct {
		err   error
		asked bool // for another source
	}{
		{io.EOF, false},
		{fault.New(fault.Corrupt, "the table ends: %w", io.EOF), true},
		{fault.New(fault.Unavailable, "the node hangs up: %w", io.EOF), true},
	} {
		asked := false
		from := anyOf(endsOf{test.err}, func(error) (io.ReaderAt, error) {
			asked = true
			return bytes.NewReader([]byte{1}), nil
		})
		n, err := from.ReadAt(make([]byte, 1), 0)
		if asked != test.asked || asked && (n != 1 || err != nil) || !asked && err != io.EOF { //nolint:errorlint // readers of readers compare it so
			t.Errorf("%v: %d, %v, asked for another: %v", test.err, n, err, asked)
		}
	}
}

// A range goes on elsewhere where its source breaks off: what a node that goes away,
// or a table that is cut short, says has an unexpected end in its tree.
func TestARangeGoesOnElsewhere(t *testing.T) {
	all := []byte("what was stored, and nothing else")
	for _, test := range []struct {
		name   string
		first  io.ReaderAt
		length int64
		want   error // nil: all of it
		asked  bool  // for another source
	}{
		{"whole", rangesOf{bytes.NewReader(all), 0, nil}, int64(len(all)), nil, false},
		{"its node is gone", rangesOf{bytes.NewReader(all), 7, fault.New(fault.Unavailable, "breaks off: %w", io.ErrUnexpectedEOF)}, int64(len(all)), nil, true},
		{"its table is cut short", rangesOf{bytes.NewReader(all), 7, fault.New(fault.Corrupt, "ends at 7: %w", io.ErrUnexpectedEOF)}, int64(len(all)), nil, true},
		{"behind its end", rangesOf{bytes.NewReader(all), 0, nil}, int64(len(all)) + 1, io.ErrUnexpectedEOF, false},
	} {
		asked := false
		from := anyOf(test.first, func(error) (io.ReaderAt, error) {
			asked = true
			return bytes.NewReader(all), nil
		})
		var out bytes.Buffer
		err := writeRange(from, &out, 0, test.length)
		if !errors.Is(err, test.want) || asked != test.asked || err == nil && out.String() != string(all) {
			t.Errorf("%s: %q, %v, asked for another: %v", test.name, &out, err, asked)
		}
	}
}
