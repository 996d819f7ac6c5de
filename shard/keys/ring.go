package keys

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/shard/seal"
)

// Epochs are the network's keys that wrap study keys; *identity.Node has them.
type Epochs interface {
	Epoch(number uint32) ([32]byte, error)
	Current() uint32
}

// Ring holds the study keys.
type Ring struct {
	fs     vfs.FS
	dir    string
	epochs Epochs

	mu      sync.Mutex // held over I/O: the file's order is the index's order
	file    vfs.File   // to append
	reader  vfs.File
	size    int64 // of the whole records and what lies between them
	broken  bool  // a write failed: what is on disk behind size is unknown
	damaged int
	byID    map[uint64][]int64 // the id's first bytes → offsets
	byStudy map[uint64][]int64 // a hash of the study → offsets
	closed  bool
}

// Open reads the ring in the key folder dir, or begins one. fault.Corrupt if the
// file is not a ring, fault.Unsupported if a newer program wrote it.
func Open(fs vfs.FS, dir string, epochs Epochs) (*Ring, error) {
	r := &Ring{fs: fs, dir: dir, epochs: epochs}
	b, err := r.load()
	if errors.Is(err, os.ErrNotExist) {
		b, err = []byte(fileMagic), nil
		if err := identity.WriteFile(fs, dir, fileName, b); err != nil {
			return nil, diskError(err)
		}
	}
	if err != nil {
		return nil, err
	}
	whole, err := r.index(b)
	if err != nil {
		return nil, err
	}
	// The file is written anew up to its last whole record: what a crash left
	// behind it was promised to nobody, and a fresh file can be appended to.
	if err := r.rewrite(b[:whole]); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Ring) load() ([]byte, error) {
	f, err := r.fs.Open(r.fs.PathJoin(r.dir, fileName))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return b, nil
}

// index finds every record and returns where the last one ends.
func (r *Ring) index(b []byte) (whole int, err error) {
	last := len(fileMagic) - 1
	switch {
	case len(b) <= last || string(b[:last]) != fileMagic[:last]:
		return 0, fault.New(fault.Corrupt, "keys: %s is not a ring of study keys", fileName)
	case b[last] != fileMagic[last]:
		return 0, fault.New(fault.Unsupported, "keys: ring of version %d", b[last])
	}
	r.byID, r.byStudy, r.damaged = map[uint64][]int64{}, map[uint64][]int64{}, 0
	whole = len(fileMagic)
	for at := whole; at < len(b); {
		rec, ok := parse(b[at:])
		if !ok {
			at += next(b[at:])
			continue
		}
		if at > whole {
			r.damaged++ // a rotten run before this record
		}
		r.note(&rec, int64(at))
		at += rec.size()
		whole = at
	}
	return whole, nil
}

func (r *Ring) note(rec *record, at int64) {
	id, study := idSlot(rec.id), studySlot(rec.study)
	r.byID[id] = append(r.byID[id], at)
	r.byStudy[study] = append(r.byStudy[study], at)
}

func idSlot(id [16]byte) uint64 { return binary.BigEndian.Uint64(id[:]) }

func studySlot(study string) uint64 {
	sum := sha256.Sum256([]byte(study))
	return binary.BigEndian.Uint64(sum[:])
}

// rewrite puts a file of these bytes in place and opens it to append.
func (r *Ring) rewrite(b []byte) error {
	temp, name := r.fs.PathJoin(r.dir, fileName+".new"), r.fs.PathJoin(r.dir, fileName)
	f, err := identity.CreateFile(r.fs, temp)
	if err != nil {
		return diskError(err)
	}
	_, err = f.Write(append([]byte(nil), b...)) // vfs may change what it is given
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = r.fs.Rename(temp, name)
	}
	if err == nil {
		err = identity.SyncDir(r.fs, r.dir)
	}
	var reader vfs.File
	if err == nil {
		reader, err = r.fs.Open(name)
	}
	if err != nil {
		return errors.Join(diskError(err), f.Close())
	}
	if r.file != nil {
		_, _ = r.file.Close(), r.reader.Close() // replaced; nothing of them matters any more
	}
	r.file, r.reader, r.size, r.broken = f, reader, int64(len(b)), false
	return nil
}

// Damaged is how many runs of rotten bytes were met at Open.
func (r *Ring) Damaged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damaged
}

// ForStudy returns the study's key, making one, durably, when there is none. Of
// several it is the newest.
func (r *Ring) ForStudy(study string) (id [16]byte, key seal.Key, err error) {
	if err := checkStudies(study); err != nil {
		return id, key, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return id, key, err
	}
	rec, err := r.ofStudyLocked(study)
	if fault.Is(err, fault.NotFound) {
		if err := r.addLocked(study); err != nil {
			return id, key, err
		}
		rec, err = r.ofStudyLocked(study)
	}
	if err != nil {
		return id, key, err
	}
	key, err = r.unwrap(rec)
	return rec.id, key, err
}

// Prepare makes the keys that studies lack, with one sync for all of them.
func (r *Ring) Prepare(studies ...string) error {
	if err := checkStudies(studies...); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return err
	}
	var lacking []string
	seen := map[string]bool{}
	for _, study := range studies {
		if seen[study] {
			continue
		}
		seen[study] = true
		if _, err := r.ofStudyLocked(study); fault.Is(err, fault.NotFound) {
			lacking = append(lacking, study)
		} else if err != nil {
			return err
		}
	}
	return r.addLocked(lacking...)
}

// Key returns a key by its id; fault.NotFound for one that is unknown or was
// forgotten.
func (r *Ring) Key(id [16]byte) (seal.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return seal.Key{}, errClosed
	}
	for _, at := range r.byID[idSlot(id)] {
		rec, err := r.readLocked(at)
		if err != nil {
			return seal.Key{}, err
		}
		if rec.id == id {
			return r.unwrap(rec)
		}
	}
	return seal.Key{}, fault.New(fault.NotFound, "keys: no such study key")
}

// Forget drops all keys of studies, durably, so that their packs are noise:
// the file is written anew without them. Old copies of the file, in backups or
// in blocks that the disk has not reused, still hold them.
func (r *Ring) Forget(studies ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return err
	}
	drop := map[string]bool{}
	for _, study := range studies {
		if _, err := r.ofStudyLocked(study); err == nil {
			drop[study] = true
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	if len(drop) == 0 {
		return nil
	}
	b := make([]byte, r.size)
	if err := readFull(r.reader, b, 0); err != nil {
		return err
	}
	kept := append(make([]byte, 0, len(b)), fileMagic...)
	for at := len(fileMagic); at < len(b); {
		rec, ok := parse(b[at:])
		size := rec.size()
		if !ok {
			size = next(b[at:])
		}
		if !ok || !drop[rec.study] { // rotten bytes are kept: they may be another's key
			kept = append(kept, b[at:at+size]...)
		}
		at += size
	}
	if err := r.rewrite(kept); err != nil {
		return err
	}
	damaged := r.damaged
	_, err := r.index(kept)
	r.damaged = damaged
	return err
}

// Close closes the ring.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return errors.Join(r.file.Close(), r.reader.Close())
}

var errClosed = fault.New(fault.Unavailable, "keys: the ring is closed")

// usableLocked makes the file one that can be appended to after a failed write.
func (r *Ring) usableLocked() error {
	if r.closed {
		return errClosed
	}
	if !r.broken {
		return nil
	}
	b := make([]byte, r.size)
	if err := readFull(r.reader, b, 0); err != nil {
		return err
	}
	return r.rewrite(b)
}

// addLocked makes, wraps and appends keys, and syncs them once.
func (r *Ring) addLocked(studies ...string) error {
	if len(studies) == 0 {
		return nil
	}
	number := r.epochs.Current()
	epoch, err := r.epochs.Epoch(number)
	if err != nil {
		return err
	}
	var b []byte
	records := make([]record, len(studies))
	for i, study := range studies {
		rec := &records[i]
		rec.study, rec.epoch = study, number
		rand.Read(rec.id[:])
		wrapped, err := seal.Wrap(epoch, rec.id, seal.NewKey())
		if err != nil {
			return err
		}
		copy(rec.wrapped[:], wrapped)
		b = rec.append(b)
	}
	r.broken = true
	length := int64(len(b))
	if _, err := r.file.Write(b); err != nil {
		return diskError(err)
	}
	if err := r.file.SyncData(); err != nil {
		return diskError(err)
	}
	r.broken = false
	for i := range records {
		r.note(&records[i], r.size)
		r.size += int64(records[i].size())
		length -= int64(records[i].size())
	}
	if length != 0 {
		panic("keys: a record has another size than it says")
	}
	return nil
}

// ofStudyLocked is the newest record of a study.
func (r *Ring) ofStudyLocked(study string) (record, error) {
	places := r.byStudy[studySlot(study)]
	for i := len(places) - 1; i >= 0; i-- {
		rec, err := r.readLocked(places[i])
		if err != nil {
			return record{}, err
		}
		if rec.study == study {
			return rec, nil
		}
	}
	return record{}, fault.New(fault.NotFound, "keys: no key for the study")
}

func (r *Ring) readLocked(at int64) (record, error) {
	b := make([]byte, min(recordBytes+maxStudy, r.size-at))
	if err := readFull(r.reader, b, at); err != nil {
		return record{}, err
	}
	rec, ok := parse(b)
	if !ok {
		return rec, fault.New(fault.Corrupt, "keys: the record at %d is rotten", at)
	}
	return rec, nil
}

func (r *Ring) unwrap(rec record) (seal.Key, error) {
	epoch, err := r.epochs.Epoch(rec.epoch)
	if err != nil {
		return seal.Key{}, err
	}
	return seal.Unwrap(epoch, rec.id, rec.wrapped[:])
}

func checkStudies(studies ...string) error {
	for _, study := range studies {
		if len(study) == 0 || len(study) > maxStudy {
			return fault.New(fault.Invalid, "keys: a study's name of %d bytes", len(study))
		}
	}
	return nil
}

func readFull(f vfs.File, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fault.New(fault.Corrupt, "keys: the ring ends at %d", at+int64(n))
	}
	return fmt.Errorf("keys: read: %w", err)
}

// diskError gives a failed write its kind.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.New(fault.Full, "keys: write: %w", err)
	}
	return fmt.Errorf("keys: write: %w", err)
}
