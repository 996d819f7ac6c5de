package keys

import (
	"bufio"
	"bytes"
	"errors"
	"hash/maphash"
	"io"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// The ring rests twice. Both files are the same to the byte, but for what a
// crash cut short: every record is synced in both before its key is returned,
// so what one of them has lost the other has. A start, and whoever meets rot,
// merges them: all records of both, of which a file that is whole is written in
// the place of each, one after the other. So at every moment one of them holds
// everything.

// copyNames are the files; keys are read from the first.
var copyNames = [...]string{fileName, fileName + ".copy"}

const copies = len(copyNames)

// source is one of the files as it was found.
type source struct {
	file    vfs.File // nil: missing
	length  int64
	end     int64 // of the last whole record
	records int
	rotten  int   // runs of other bytes before end
	err     error // why nothing of it can be used
}

// sound reports whether a file holds records and nothing else. It then has every
// key that was ever returned.
func (s *source) sound() bool { return s.err == nil && s.rotten == 0 && s.end == s.length }

// survey opens one of the files and reads it through. What is wrong with the
// file is in the source; an error is one of opening it.
func (r *Ring) survey(name string) (*source, error) {
	s := &source{}
	f, err := r.fs.OpenReadWrite(r.fs.PathJoin(r.dir, name), vfs.WriteCategoryUnspecified)
	if errors.Is(err, os.ErrNotExist) {
		s.err = fault.New(fault.Corrupt, "keys: %s is missing", name)
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	s.file = f
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.length, s.end = info.Size(), int64(len(fileMagic))
	s.err = s.read(name)
	return s, nil
}

// read reads a file through.
func (s *source) read(name string) error {
	if err := checkHead(s.file, name, s.length); err != nil {
		return err
	}
	return scan(s.file, s.end, s.length, func(at int64, rec *record, raw []byte) error {
		if rec == nil {
			return nil
		}
		if at > s.end {
			s.rotten++
		}
		s.records++
		s.end = at + int64(len(raw))
		return nil
	})
}

// checkHead reads a file's magic: fault.Corrupt if it is no ring,
// fault.Unsupported if a newer program wrote it.
func checkHead(f io.ReaderAt, name string, length int64) error {
	head := make([]byte, len(fileMagic))
	last := len(head) - 1
	if length < int64(len(head)) {
		return fault.New(fault.Corrupt, "keys: %s is not a ring of study keys", name)
	}
	if err := readFull(f, head, 0); err != nil {
		return err
	}
	switch {
	case string(head[:last]) != fileMagic[:last]:
		return fault.New(fault.Corrupt, "keys: %s is not a ring of study keys", name)
	case head[last] != fileMagic[last]:
		return fault.New(fault.Unsupported, "keys: ring of version %d", head[last])
	}
	return nil
}

// same reports whether two files have the same bytes up to a length.
func same(f, g io.ReaderAt, length int64) bool {
	a, b := make([]byte, min(windowBytes, length)), make([]byte, min(windowBytes, length))
	for at := int64(0); at < length; at += int64(len(a)) {
		n := min(int64(len(a)), length-at)
		if readFull(f, a[:n], at) != nil || readFull(g, b[:n], at) != nil || !bytes.Equal(a[:n], b[:n]) {
			return false
		}
	}
	return true
}

// merger writes one file of two.
type merger struct {
	base, other *source // other is nil if nothing of it can be used
	keep        func(*record) bool
	seed        maphash.Seed
	known       places // of the base's records, by id
	taken       map[wrapping]bool
	diverged    bool // records of both differ in place: a rewriting was cut short
	mended      int  // rotten runs of one that the other makes up for
}

// newMerger prepares to merge; an error says that what can be read is not enough
// to put a new file in place of the old ones.
func newMerger(found [copies]*source, keep func(*record) bool) (*merger, error) {
	for _, s := range found {
		if fault.Is(s.err, fault.Unsupported) {
			return nil, s.err
		}
	}
	m := &merger{base: found[0], other: found[1], keep: keep, seed: maphash.MakeSeed(), taken: map[wrapping]bool{}}
	if m.base.err != nil {
		m.base, m.other = m.other, m.base
	}
	if m.base.err != nil {
		return nil, m.base.err
	}
	if err := m.other.err; err != nil {
		// What is there and cannot be read may be read another day: it is replaced
		// only by a file that surely has all that it held.
		if m.other.file != nil && !fault.Is(err, fault.Corrupt) && !m.base.sound() {
			return nil, err
		}
		m.other = nil
	}
	if m.other == nil {
		return m, nil
	}
	m.known = newPlaces(m.base.length / (recordBytes + usualUID))
	return m, scan(m.base.file, int64(len(fileMagic)), m.base.end, func(at int64, rec *record, raw []byte) error {
		if rec == nil {
			return nil
		}
		if err := m.known.room(1, at); err != nil {
			return err
		}
		m.known.add(maphash.Bytes(m.seed, rec.id[:]), at)
		there, ok := m.other.at(at)
		m.diverged = m.diverged || ok && !bytes.Equal(there, raw)
		return nil
	})
}

// at returns the bytes of the record that begins at a place, if one does.
func (s *source) at(at int64) ([]byte, bool) {
	b := make([]byte, max(0, min(maxRecord, s.end-at)))
	var rec record
	if len(b) < recordBytes || readFull(s.file, b, at) != nil || !rec.parse(b) {
		return nil, false
	}
	return b[:rec.size()], true
}

// has reports whether the base has a record.
func (m *merger) has(w wrapping) bool {
	for _, at := range m.known.find(maphash.Bytes(m.seed, w.id[:])) {
		b, ok := m.base.at(at)
		var rec record
		if ok && rec.parse(b) && rec.wrapping() == w {
			return true
		}
	}
	return false
}

// between returns the records of a file that fill a run of the other's exactly.
// That is what the run was, unless the two have diverged.
func (m *merger) between(s *source, from, to int64) ([]byte, bool) {
	if m.diverged {
		return nil, false
	}
	var all []byte
	for from < to {
		raw, ok := s.at(from)
		if !ok {
			return nil, false
		}
		all, from = append(all, raw...), from+int64(len(raw))
	}
	return all, from == to
}

// write writes the merged file. Runs of the other file that nothing makes up for
// stand in front, where no reader takes them for the end of the ring.
func (m *merger) write(out io.Writer) error {
	_, err := io.WriteString(out, fileMagic)
	if err == nil && m.other != nil {
		err = m.writeRuns(out)
	}
	if err == nil {
		err = scan(m.base.file, int64(len(fileMagic)), m.base.end, func(at int64, rec *record, raw []byte) error {
			if rec == nil {
				return m.writeRun(out, at, raw)
			}
			return m.writeRecord(out, rec, raw)
		})
	}
	if err != nil || m.other == nil {
		return err
	}
	return scan(m.other.file, int64(len(fileMagic)), m.other.end, func(_ int64, rec *record, raw []byte) error {
		if rec == nil || m.taken[rec.wrapping()] || m.has(rec.wrapping()) {
			return nil
		}
		return m.writeRecord(out, rec, raw)
	})
}

func (m *merger) writeRecord(out io.Writer, rec *record, raw []byte) error {
	if !m.keep(rec) {
		return nil
	}
	_, err := out.Write(raw)
	return err
}

// writeRun writes what the other file has in place of a rotten run of the base,
// or the run itself: it may be a key.
func (m *merger) writeRun(out io.Writer, at int64, raw []byte) error {
	if m.other == nil {
		_, err := out.Write(raw)
		return err
	}
	instead, ok := m.between(m.other, at, at+int64(len(raw)))
	switch {
	case ok:
		m.mended++
		return scan(bytes.NewReader(instead), 0, int64(len(instead)), func(_ int64, rec *record, raw []byte) error {
			m.taken[rec.wrapping()] = true
			return m.writeRecord(out, rec, raw)
		})
	case m.other.sound():
		m.mended++
		return nil // its records follow
	}
	_, err := out.Write(raw)
	return err
}

// writeRuns writes the rotten runs of the other file that the base does not make
// up for.
func (m *merger) writeRuns(out io.Writer) error {
	return scan(m.other.file, int64(len(fileMagic)), m.other.end, func(at int64, rec *record, raw []byte) error {
		if rec != nil {
			return nil
		}
		if _, ok := m.between(m.base, at, at+int64(len(raw))); ok || m.base.sound() {
			m.mended++
			return nil
		}
		b := make([]byte, len(raw))
		if at+int64(len(raw)) <= m.base.end && readFull(m.base.file, b, at) == nil && bytes.Equal(b, raw) {
			return nil // the base has the same, and keeps it
		}
		_, err := out.Write(raw)
		return err
	})
}

// merge puts what both files hold, and keep leaves, in the place of each, and
// opens them. mu is held.
func (r *Ring) merge(keep func(*record) bool) (err error) {
	r.broken = true
	var found [copies]*source
	defer func() {
		for _, s := range found {
			if s != nil && s.file != nil {
				err = errors.Join(err, s.file.Close())
			}
		}
	}()
	for i, name := range copyNames {
		if found[i], err = r.survey(name); err != nil {
			return err
		}
	}
	m, err := newMerger(found, keep)
	if err != nil {
		return err
	}
	if err := r.replace(copyNames[0], m.write); err != nil {
		return err
	}
	merged, err := r.fs.Open(r.fs.PathJoin(r.dir, copyNames[0]))
	if err != nil {
		return err
	}
	err = r.replace(copyNames[1], func(out io.Writer) error {
		_, err := io.Copy(out, merged)
		return err
	})
	if err = errors.Join(err, merged.Close()); err != nil {
		return err
	}
	r.mended += m.mended
	if m.other == nil && m.base.records > 0 {
		r.mended++
	}
	return r.reopen()
}

// replace puts a file in place of one of the ring's, durably.
func (r *Ring) replace(name string, write func(io.Writer) error) error {
	temp, path := r.fs.PathJoin(r.dir, name+".new"), r.fs.PathJoin(r.dir, name)
	f, err := identity.CreateFile(r.fs, temp)
	if err != nil {
		return diskError(err)
	}
	out := bufio.NewWriterSize(f, windowBytes)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		if err = r.fs.Rename(temp, path); err == nil {
			err = identity.SyncDir(r.fs, r.dir)
		}
	}
	if err != nil {
		return diskError(err)
	}
	return nil
}

// reopen opens both files, reads the first into the index, and clears broken if
// the second is the same. If it fails, what was open stays so.
func (r *Ring) reopen() (err error) {
	var files [copies]vfs.File
	defer func() {
		if err == nil {
			files, r.files = r.files, files
		}
		closeAll(files)
	}()
	var lengths [copies]int64
	for i, name := range copyNames {
		f, err := r.fs.OpenReadWrite(r.fs.PathJoin(r.dir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		files[i] = f
		info, err := f.Stat()
		if err != nil {
			return err
		}
		lengths[i] = info.Size()
	}
	read := &Ring{} // an index that was not read to its end must not be used
	if err := read.index(files[0], lengths[0]); err != nil {
		return err
	}
	r.seed, r.byID, r.byStudy, r.size, r.damaged = read.seed, read.byID, read.byStudy, read.size, read.damaged
	r.broken = lengths[1] != r.size || lengths[0] != r.size || !same(files[0], files[1], r.size)
	return nil
}

func closeAll(files [copies]vfs.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // replaced, or only read: what counts was synced
		}
	}
}
