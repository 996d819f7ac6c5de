package keys

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/shard/seal"
)

// Epochs are the network's keys that wrap study keys; *identity.Node has them.
type Epochs interface {
	// Epoch returns a key; fault.NotFound for one that is not held.
	Epoch(number uint32) ([32]byte, error)
	// Current is the newest that is held; 0: there is none yet.
	Current() uint32
}

// Ring holds the study keys.
type Ring struct {
	fs     vfs.FS
	dir    string
	epochs Epochs

	mu      sync.Mutex // held over I/O: the files' order is the index's order
	files   [copies]vfs.File
	size    int64 // of the whole records and what lies between them, in each
	broken  bool  // the files differ, or a write failed: what is behind size is unknown
	rotten  bool  // a read found the first file rotten
	damaged int
	mended  int
	seed    maphash.Seed // of the hashes in the tables below: nobody outside can choose UIDs that collide
	byID    places
	byStudy places
	closed  bool
}

// Open reads the ring in the key folder dir, or begins one. What one of its two
// files has lost is taken from the other. fault.Corrupt if neither is a ring,
// fault.Unsupported if a newer program wrote one.
func Open(fs vfs.FS, dir string, epochs Epochs) (*Ring, error) {
	r := &Ring{fs: fs, dir: dir, epochs: epochs}
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := 0
	for _, name := range copyNames {
		if _, err := fs.Stat(fs.PathJoin(dir, name)); errors.Is(err, os.ErrNotExist) {
			missing++
		}
	}
	if missing == copies {
		for _, name := range copyNames {
			if err := identity.WriteFile(fs, dir, name, []byte(fileMagic)); err != nil {
				return nil, diskError(err)
			}
		}
		missing = 0
	}
	err := error(nil)
	if missing == 0 {
		err = r.reopen()
	}
	if missing > 0 || err != nil || r.broken {
		// One of them is rotten, or lacks what a crash kept from it. What stands
		// behind the last whole record of both was promised to nobody.
		err = r.merge(anyOf)
	}
	if err != nil {
		closeAll(r.files)
		return nil, fmt.Errorf("keys: open: %w", err)
	}
	return r, nil
}

func anyOf(*record) bool { return true }

// index finds every record of a file of length bytes; size is then the end of
// the last one.
func (r *Ring) index(f io.ReaderAt, length int64) error {
	if err := checkHead(f, fileName, length); err != nil {
		return err
	}
	about := length / (recordBytes + usualUID)
	r.seed, r.byID, r.byStudy, r.damaged = maphash.MakeSeed(), newPlaces(about), newPlaces(about), 0
	r.size = int64(len(fileMagic))
	return scan(f, r.size, length, func(at int64, rec *record, raw []byte) error {
		if rec == nil {
			return nil
		}
		if at > r.size {
			r.damaged++ // a rotten run before this record
		}
		if err := r.byID.room(1, at); err != nil {
			return err
		}
		r.note(rec, at)
		r.size = at + int64(len(raw))
		return nil
	})
}

// usualUID is the length of a short Study Instance UID: a table is rather made
// too large than twice.
const usualUID = 32

// windowBytes is how much of the file is in memory while it is scanned.
const windowBytes = 1 << 20

// scan reads the file from from to length and calls visit for every record,
// and, without one, for every run of other bytes. Both are valid during the
// call; its error ends the scan.
func scan(f io.ReaderAt, from, length int64, visit func(at int64, rec *record, raw []byte) error) error {
	buffer := make([]byte, min(windowBytes, length-from))
	var window []byte
	var room record
	for at := from; at < length; {
		if len(window) < maxRecord && at+int64(len(window)) < length {
			window = buffer[:min(int64(len(buffer)), length-at)]
			if err := readFull(f, window, at); err != nil {
				return err
			}
		}
		var rec *record
		var size int
		if room.parse(window) {
			rec, size = &room, room.size()
		} else {
			size = next(window)
		}
		if err := visit(at, rec, window[:size]); err != nil {
			return err
		}
		at, window = at+int64(size), window[size:]
	}
	return nil
}

func (r *Ring) note(rec *record, at int64) {
	r.byID.add(maphash.Bytes(r.seed, rec.id[:]), at)
	r.byStudy.add(maphash.Bytes(r.seed, rec.study), at)
}

// Mended is how many runs of rotten bytes, and files that were missing or no
// ring, were made up for by the other file.
func (r *Ring) Mended() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mended
}

// Damaged is how many runs of rotten bytes neither file makes up for: each may
// have been a key.
func (r *Ring) Damaged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damaged
}

// Ready reports whether study keys can be made: fault.Unavailable while this node
// holds no epoch key to wrap them by.
func (r *Ring) Ready() error {
	_, _, err := r.current()
	return err
}

// current is the newest epoch.
func (r *Ring) current() (number uint32, epoch seal.Key, err error) {
	if number = r.epochs.Current(); number == 0 {
		return 0, epoch, fault.New(fault.Unavailable, "keys: this node has no epoch key of its network yet")
	}
	epoch, err = r.epoch(number)
	return number, epoch, err
}

// epoch is one that is held; fault.Unavailable for another, which the network may
// yet give to this node.
func (r *Ring) epoch(number uint32) (seal.Key, error) {
	key, err := r.epochs.Epoch(number)
	if fault.Is(err, fault.NotFound) {
		err = fault.New(fault.Unavailable, "keys: this node lacks the key of epoch %d: %v", number, err)
	}
	return key, err
}

// ForStudy returns this node's key of a study, making one, durably, when there is
// none. Of several it is the newest; never another node's. fault.Unavailable as
// [Ring.Ready] has it, if one has to be made.
func (r *Ring) ForStudy(study string) (id [16]byte, key seal.Key, err error) {
	if err := checkStudies(study); err != nil {
		return id, key, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return id, key, err
	}
	defer r.healLocked()
	rec, err := r.ofStudyLocked(study, (*record).own)
	if fault.Is(err, fault.NotFound) {
		if err := r.addLocked(study); err != nil {
			return id, key, err
		}
		rec, err = r.ofStudyLocked(study, (*record).own)
	}
	if err != nil {
		return id, key, err
	}
	key, err = r.unwrap(rec)
	return rec.id, key, err
}

// Prepare makes the keys of this node that studies lack, with one sync for all of
// them. fault.Unavailable as [Ring.ForStudy].
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
		if _, err := r.ofStudyLocked(study, (*record).own); fault.Is(err, fault.NotFound) {
			lacking = append(lacking, study)
		} else if err != nil {
			return err
		}
	}
	return r.addLocked(lacking...)
}

// Key returns a key by its id, another node's too; fault.NotFound for one that is
// unknown or was forgotten, fault.Unavailable while this node lacks its epoch.
func (r *Ring) Key(id [16]byte) (seal.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return seal.Key{}, errClosed
	}
	defer r.healLocked()
	wrappings, err := r.ofIDLocked(id)
	if err != nil {
		return seal.Key{}, err
	}
	for i := range wrappings { // the first error counts: it is of the latest
		key, failed := r.unwrap(wrappings[i])
		if failed == nil {
			return key, nil
		}
		err = cmp.Or(err, failed)
	}
	return seal.Key{}, err
}

// Wrap seals a study key of another node's ring, whose id it is, under the newest
// epoch, to be kept where the caller likes: this ring does not keep it.
// fault.Unavailable as [Ring.Ready].
func (r *Ring) Wrap(id [16]byte, key seal.Key) ([]byte, error) {
	number, epoch, err := r.current()
	if err != nil {
		return nil, err
	}
	wrapped, err := seal.Wrap(epoch, id, key)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, number), wrapped...), nil
}

// Unwrap opens what Wrap sealed; fault.Corrupt if it was changed or is of another
// id, fault.Unavailable while this node lacks the epoch.
func (r *Ring) Unwrap(id [16]byte, wrapped []byte) (seal.Key, error) {
	if len(wrapped) < 4 {
		return seal.Key{}, fault.New(fault.Corrupt, "keys: a wrapped key of %d bytes", len(wrapped))
	}
	epoch, err := r.epoch(binary.BigEndian.Uint32(wrapped))
	if err != nil {
		return seal.Key{}, err
	}
	return seal.Unwrap(epoch, id, wrapped[4:])
}

// Open opens a study key as the network has agreed on it, whether the ring holds it or
// not; fault.Corrupt if it is of another id or epoch, fault.Unavailable while this node
// lacks the epoch.
func (r *Ring) Open(k StudyKey) (seal.Key, error) {
	epoch, err := r.epoch(k.Epoch)
	if err != nil {
		return seal.Key{}, err
	}
	return seal.Unwrap(epoch, k.ID, k.Wrapped[:])
}

// Forget drops all keys of studies, other nodes' too, durably, so that their packs
// are noise wherever they are: for studies that the network has given up, and only
// these. Both files are written anew without them. A crash may leave one with them, and
// the next start then takes them back: it was not done. Old copies of the file, in backups or
// in blocks that the disk has not reused, still hold them.
func (r *Ring) Forget(studies ...string) error { return r.forget(anyOf, studies) }

// ForgetOwn drops this node's keys of studies of which it has nothing left, as Forget
// does. What other nodes have of them opens as before.
func (r *Ring) ForgetOwn(studies ...string) error { return r.forget((*record).own, studies) }

// ForgetKeys drops keys by their ids, as Forget does: those that the network has given up.
func (r *Ring) ForgetKeys(ids ...[16]byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return err
	}
	drop := map[[16]byte]bool{}
	for _, id := range ids {
		if _, err := r.ofIDLocked(id); err == nil {
			drop[id] = true
		} else if !fault.Is(err, fault.NotFound) && !fault.Is(err, fault.Corrupt) { // what is rotten opens nothing
			return err
		}
	}
	if len(drop) == 0 {
		return nil
	}
	return r.merge(func(rec *record) bool { return !drop[rec.id] })
}

// forget drops those keys of studies that such reports.
func (r *Ring) forget(such func(*record) bool, studies []string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.usableLocked(); err != nil {
		return err
	}
	drop := map[string]bool{}
	for _, study := range studies {
		if _, err := r.ofStudyLocked(study, such); err == nil {
			drop[study] = true
		} else if !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	if len(drop) == 0 {
		return nil
	}
	return r.merge(func(rec *record) bool { return !drop[string(rec.study)] || !such(rec) })
}

// Close closes the ring.
func (r *Ring) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	var errs []error
	for _, f := range r.files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

var errClosed = fault.New(fault.Unavailable, "keys: the ring is closed")

// usableLocked makes the files the same again after a failed write, so that they
// can be appended to.
func (r *Ring) usableLocked() error {
	if r.closed {
		return errClosed
	}
	if !r.broken {
		return nil
	}
	return r.merge(anyOf)
}

// addLocked makes, wraps and appends keys of this node.
func (r *Ring) addLocked(studies ...string) error {
	if len(studies) == 0 {
		return nil
	}
	number, epoch, err := r.current()
	if err != nil {
		return err
	}
	records := make([]record, len(studies))
	for i, study := range studies {
		rec := &records[i]
		rec.study, rec.epoch = []byte(study), number
		rand.Read(rec.id[:])
		wrapped, err := seal.Wrap(epoch, rec.id, seal.NewKey())
		if err != nil {
			return err
		}
		copy(rec.wrapped[:], wrapped)
	}
	return r.appendLocked(records)
}

// appendLocked appends records, and syncs them once in each file: in the second
// before the first.
func (r *Ring) appendLocked(records []record) error {
	if len(records) == 0 {
		return nil
	}
	var b []byte
	for i := range records {
		b = records[i].append(b)
	}
	length := int64(len(b))
	if err := r.byID.room(len(records), r.size+length); err != nil {
		return err
	}
	r.broken = true
	for i := copies - 1; i >= 0; i-- {
		// What is given to WriteAt may be changed by the file system.
		if _, err := r.files[i].WriteAt(bytes.Clone(b), r.size); err != nil {
			return diskError(err)
		}
		if err := r.files[i].SyncData(); err != nil {
			return diskError(err)
		}
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

// ofIDLocked are the records with an id, those of later epochs first: at least one,
// or an error.
func (r *Ring) ofIDLocked(id [16]byte) ([]record, error) {
	var found []record
	var failed error
	for _, at := range r.byID.find(maphash.Bytes(r.seed, id[:])) {
		rec, err := r.readLocked(at)
		if err != nil {
			failed = cmp.Or(failed, err)
		} else if rec.id == id {
			found = append(found, rec)
		}
	}
	if len(found) == 0 {
		return nil, cmp.Or(failed, fault.New(fault.NotFound, "keys: no such study key"))
	}
	slices.SortStableFunc(found, func(a, b record) int { return cmp.Compare(b.epoch, a.epoch) })
	return found, nil
}

// ofStudyLocked is the newest record of a study among those that such reports.
func (r *Ring) ofStudyLocked(study string, such func(*record) bool) (record, error) {
	for _, at := range r.byStudy.find(maphash.String(r.seed, study)) {
		rec, err := r.readLocked(at)
		if err != nil {
			return record{}, err
		}
		if string(rec.study) == study && such(&rec) {
			return rec, nil
		}
	}
	return record{}, fault.New(fault.NotFound, "keys: no key for the study")
}

// healLocked makes both files whole again after a read that found the first
// rotten. If it fails, the next who writes tries again, and tells.
func (r *Ring) healLocked() {
	if r.rotten && !r.broken && !r.closed {
		r.rotten = r.merge(anyOf) != nil
	}
}

// readLocked reads a record, from the second file if the first has lost it.
func (r *Ring) readLocked(at int64) (rec record, err error) {
	for i, f := range r.files {
		b := make([]byte, min(maxRecord, r.size-at))
		if err = readFull(f, b, at); err != nil {
			continue
		}
		if !rec.parse(b) {
			err = fault.New(fault.Corrupt, "keys: the record at %d is rotten", at)
			continue
		}
		r.rotten = r.rotten || i > 0
		return rec, nil
	}
	return record{}, err
}

func (r *Ring) unwrap(rec record) (seal.Key, error) {
	epoch, err := r.epoch(rec.epoch)
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

func readFull(f io.ReaderAt, b []byte, at int64) error {
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
