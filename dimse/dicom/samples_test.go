package dicom_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest/samples"
)

// opened is a sample file taken apart.
type opened struct {
	meta   dicom.Meta
	syntax dict.TransferSyntax
	data   []byte // the data set as it stands in the file
	plain  []byte // inflated
	header *dicom.Header
}

func open(path string) (*opened, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var o opened
	meta, r, err := dicom.OpenFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	o.meta = meta
	o.syntax, _ = dict.Syntax(meta.Syntax)
	if o.data, err = io.ReadAll(r); err != nil {
		return nil, err
	}
	o.plain = o.data
	if o.header, err = dicom.ReadHeader(bytes.NewReader(o.data), o.syntax, dicom.DefaultLimits); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if o.syntax.Deflated {
		o.plain, err = io.ReadAll(dicom.NewInflater(bytes.NewReader(o.data), dicom.DefaultLimits))
	}
	return &o, err
}

func TestExplore(t *testing.T) {
	for _, f := range samples.All(t) {
		o, err := open(f.Path)
		if err != nil {
			t.Logf("%s: %v [%s]", f.Name, err, f.Dcmdump)
			continue
		}
		_, ferr := o.header.Frames()
		if ferr != nil && o.header.Dataset.Has(dict.PixelData) {
			t.Logf("%s: FRAMES %v", f.Name, ferr)
		}
		if f.Dcmdump != "ok" {
			t.Logf("%s: accepted [%s]", f.Name, f.Dcmdump)
		}
	}
}
