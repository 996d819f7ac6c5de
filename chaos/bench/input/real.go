package input

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Real is a real file: what its data set says it is, and its bytes.
type Real struct {
	Meta          dicom.Meta // class, instance and syntax
	File          []byte     // the whole Part 10 file
	Study, Series string     // their UIDs
}

// ErrUnsuitable says that a file cannot be varied.
var ErrUnsuitable = errors.New("not an image that can be sent under another UID")

// Load reads a file.
func Load(path string) (Real, error) {
	file, err := os.ReadFile(path)
	if err != nil {
		return Real{}, err
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(file))
	if err != nil {
		return Real{}, fmt.Errorf("%w: %w", ErrUnsuitable, err)
	}
	syntax, ok := dict.Syntax(meta.Syntax)
	if !ok {
		return Real{}, ErrUnsuitable
	}
	header, err := dicom.ReadHeader(body, syntax, dicom.DefaultLimits)
	if err != nil {
		return Real{}, fmt.Errorf("%w: %w", ErrUnsuitable, err)
	}
	meta.Class, meta.Instance = header.Dataset.String(dict.SOPClassUID), header.Dataset.String(dict.SOPInstanceUID)
	if meta.Class == "" || len(meta.Instance) < suffix+2 || syntax.Deflated {
		return Real{}, ErrUnsuitable
	}
	return Real{
		Meta: meta, File: file,
		Study: header.Dataset.String(dict.StudyInstanceUID), Series: header.Dataset.String(dict.SeriesInstanceUID),
	}, nil
}

// suffix is how many of a UID's last characters a variant replaces.
const suffix = 7

// Vary returns the nth variant of a file, which belongs to a copy of its study:
// the same but for its study, series and SOP instance UIDs, which keep their
// lengths. No two variants of any files may have the same n; the files of a
// series stay one in each copy.
func (r Real) Vary(n, copy int) Real {
	r.rename(r.Meta.Instance, n)
	r.rename(r.Series, copy)
	r.rename(r.Study, copy)
	return r
}

// rename gives a UID another end wherever it stands, be it as the stem of
// another UID.
func (r *Real) rename(old string, n int) {
	if len(old) < suffix+2 {
		return
	}
	uid := old[:len(old)-suffix] + fmt.Sprintf("%0*d", suffix, 1_000_000+n%9_000_000)
	r.File = bytes.ReplaceAll(r.File, []byte(old), []byte(uid))
	for _, s := range []*string{&r.Meta.Instance, &r.Series, &r.Study} {
		*s = strings.ReplaceAll(*s, old, uid)
	}
}

// Write writes the file into a folder.
func (r Real) Write(dir string) error {
	return os.WriteFile(filepath.Join(dir, r.Meta.Instance+".dcm"), r.File, 0o600)
}

// Native reports whether the pixels are not encapsulated.
func (r Real) Native() bool {
	s, ok := dict.Syntax(r.Meta.Syntax)
	return ok && s.Uncompressed() && !s.Deflated && !strings.HasPrefix(r.Meta.Syntax, "1.2.840.10008.1.2.4")
}
