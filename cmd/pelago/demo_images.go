package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/zeebo/blake3"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

// images are what a demonstration stores, by study.
type images struct {
	folder  string // of those that are made on the spot
	studies []*study
	hashes  map[string][32]byte // SOP Instance UID → BLAKE3 of the data set
	kinds   []scu.Kind          // of all: at most maxKinds
	made    int                 // phantoms so far
}

// study is one to be stored at one site.
type study struct {
	uid   string
	made  bool // on the spot: any client sends such images as they are
	files []string
}

// maxKinds is how many classes and syntaxes a demonstration takes: fewer than
// an association has presentation contexts for.
const maxKinds = 100

// sampleFolders are those of the samples that a demonstration shows.
var sampleFolders = [...]string{"ct", "mr", "us", "cr-dx", "enhanced-ct", "sr", "pet"}

func newImages(folder string) *images { return &images{folder: folder, hashes: map[string][32]byte{}} }

// files counts the instances of studies.
func files(all []*study) int {
	n := 0
	for _, s := range all {
		n += len(s.files)
	}
	return n
}

// gather takes the samples in, if there are any.
func (m *images) gather(samples string) error {
	if samples == "" {
		samples = filepath.Join("..", "shared", "dicom")
	}
	for _, part := range sampleFolders {
		err := filepath.WalkDir(filepath.Join(samples, part), func(name string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			m.add(name, false)
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// make draws a CT study of some slices, and returns it.
func (m *images) make(slices int) (*study, error) {
	m.made++
	folder := filepath.Join(m.folder, fmt.Sprintf("phantom-%d", m.made))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	if err := writePhantom(folder, m.made, slices); err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(folder, "*.dcm"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		m.add(name, true)
	}
	return m.studies[len(m.studies)-1], nil
}

// add takes a file in if it is a whole DICOM file with an instance that is not
// here yet.
func (m *images) add(name string, made bool) {
	b, err := os.ReadFile(name)
	if err != nil {
		return
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return
	}
	hash := blake3.New()
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(io.TeeReader(body, hash), syntax, dicom.DefaultLimits)
	if err != nil || syntax.Refused {
		return
	}
	class, sop, uid := h.Dataset.String(dict.SOPClassUID), h.Dataset.String(dict.SOPInstanceUID), h.Dataset.String(dict.StudyInstanceUID)
	if _, known := m.hashes[sop]; known || !dict.IsStorageClass(class) || uid == "" || h.Dataset.String(dict.SeriesInstanceUID) == "" {
		return
	}
	kind := scu.Kind{Class: class, Syntax: meta.Syntax}
	if !slices.Contains(m.kinds, kind) {
		if len(m.kinds) >= maxKinds {
			return
		}
		m.kinds = append(m.kinds, kind)
	}
	m.hashes[sop] = [32]byte(hash.Sum(nil))
	i := slices.IndexFunc(m.studies, func(s *study) bool { return s.uid == uid })
	if i < 0 {
		i = len(m.studies)
		m.studies = append(m.studies, &study{uid: uid, made: made})
	}
	m.studies[i].files = append(m.studies[i].files, name)
}

// outgoing reads a file as an instance to send.
func outgoing(name string) (scu.Instance, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return scu.Instance{}, err
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return scu.Instance{}, err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return scu.Instance{}, err
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(data), syntax, dicom.DefaultLimits)
	if err != nil {
		return scu.Instance{}, err
	}
	return scu.Instance{
		Class: h.Dataset.String(dict.SOPClassUID), UID: h.Dataset.String(dict.SOPInstanceUID), Syntax: meta.Syntax,
		Open: func(context.Context, string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}, nil
}
