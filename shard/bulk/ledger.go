package bulk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
)

// The ledger is a log of what happened to tables. Each record is its length and
// CRC-32C, four bytes each, and the payload: a type, a table, and what follows.
const (
	ledgerName  = "LEDGER"
	ledgerTemp  = "LEDGER.new"
	ledgerMagic = "PelBulk\x01" // the last byte is the version

	recordHead = 8
	maxRecord  = 16 << 20
)

// Types of records.
const (
	recordBegin = 1 + iota // a table was begun: space, number
	recordTable            // a table was committed or rewritten: space, number, sizes
	recordDead             // blobs died: space, number, how many, blob numbers
	recordGone             // a table went: space, number
	recordNext             // the next table number, in place of the space and number
)

// record is one entry of the ledger.
type record struct {
	kind  byte
	table tableKey
	sizes []int64
	blobs []uint32
}

func (r record) append(b []byte) []byte {
	b = append(b, r.kind, byte(r.table.space))
	b = binary.AppendUvarint(b, r.table.number)
	switch r.kind {
	case recordTable:
		b = appendSizes(b, r.sizes)
	case recordDead:
		b = binary.AppendUvarint(b, uint64(len(r.blobs)))
		for _, n := range r.blobs {
			b = binary.AppendUvarint(b, uint64(n))
		}
	}
	return b
}

func (r record) frame(b []byte) []byte {
	start := len(b)
	b = r.append(append(b, make([]byte, recordHead)...))
	payload := b[start+recordHead:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.BigEndian.PutUint32(b[start+4:], checksum(payload))
	return b
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

func parseRecord(b []byte) (r record, ok bool) {
	if len(b) < 3 {
		return r, false
	}
	r.kind, r.table.space = b[0], Space(b[1])
	number, n := binary.Uvarint(b[2:])
	if n <= 0 {
		return r, false
	}
	r.table.number, b = number, b[2+n:]
	switch r.kind {
	case recordBegin, recordGone, recordNext:
	case recordTable:
		if r.sizes, b, ok = parseSizes(b); !ok {
			return r, false
		}
	case recordDead:
		count, n := binary.Uvarint(b)
		if n <= 0 || count > uint64(len(b)-n) {
			return r, false
		}
		b = b[n:]
		r.blobs = make([]uint32, count)
		for i := range r.blobs {
			v, n := binary.Uvarint(b)
			if n <= 0 || v > indexBlob {
				return r, false
			}
			r.blobs[i], b = uint32(v), b[n:]
		}
	default:
		return r, false
	}
	return r, len(b) == 0
}

// ledger writes the log. Its lock is held over I/O, and over the change of state
// that a record stands for, so that a new log made of the state misses nothing.
type ledger struct {
	fs       vfs.FS
	dir      string
	snapshot func() []record // the state as records

	mu     sync.Mutex
	file   vfs.File
	size   int64 // of the log
	fresh  int64 // its size when it was last written anew
	broken bool  // a write failed: what is on disk is unknown
}

// slack is how much a log may grow beyond twice its state.
const slack = 1 << 20

// add appends records, syncs them, and then changes the state by apply. After an
// error the state is unchanged, and the next add writes the log anew. No other
// change happens between build, which makes the records, and apply.
func (l *ledger) add(build func() []record, apply func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken || l.size > 2*l.fresh+slack {
		if err := l.renewLocked(); err != nil {
			return err
		}
	}
	var b []byte
	for _, r := range build() {
		b = r.frame(b)
	}
	l.broken = true
	if _, err := l.file.Write(b); err != nil {
		return diskError("write the ledger", err)
	}
	if err := l.file.SyncData(); err != nil {
		return diskError("sync the ledger", err)
	}
	l.broken = false
	l.size += int64(len(b))
	apply()
	return nil
}

// renew writes the state as a new log.
func (l *ledger) renew() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.renewLocked()
}

func (l *ledger) renewLocked() error {
	f, size, err := l.writeLocked(l.dir)
	if err != nil {
		return err
	}
	if l.file != nil {
		_ = l.file.Close() // replaced; its bytes no longer matter
	}
	l.file, l.size, l.fresh, l.broken = f, size, size, false
	return nil
}

// writeLocked writes the state as the log of a folder, open to append.
func (l *ledger) writeLocked(dir string) (f vfs.File, size int64, err error) {
	b := []byte(ledgerMagic)
	for _, r := range l.snapshot() {
		b = r.frame(b)
	}
	size = int64(len(b))
	temp := l.fs.PathJoin(dir, ledgerTemp)
	if f, err = l.fs.Create(temp, vfs.WriteCategoryUnspecified); err != nil {
		return nil, 0, diskError("create the ledger", err)
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = l.fs.Rename(temp, l.fs.PathJoin(dir, ledgerName))
	}
	if err == nil {
		err = syncDir(l.fs, dir)
	}
	if err != nil {
		return nil, 0, errors.Join(diskError("write the ledger anew", err), f.Close())
	}
	return f, size, nil
}

// checkpoint runs copyTables and writes the state as it is then as the log of
// another folder. No change of state happens in between.
func (l *ledger) checkpoint(dir string, copyTables func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := copyTables(); err != nil {
		return err
	}
	f, _, err := l.writeLocked(dir)
	if err != nil {
		return err
	}
	return f.Close()
}

func (l *ledger) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// one builds a single record.
func one(r record) func() []record { return func() []record { return []record{r} } }

// readLedger calls apply for every whole record. damaged is why it stopped
// early, if a log that should be there is not, or a record is broken; a torn
// last record is damage too, for it cannot be told from rot.
func readLedger(fs vfs.FS, dir string, apply func(record)) (damaged, err error) {
	f, err := fs.Open(fs.PathJoin(dir, ledgerName))
	if err != nil {
		return err, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("bulk: ledger: %w", err)
	}
	size := info.Size()
	head := make([]byte, len(ledgerMagic))
	if size < int64(len(head)) {
		return errors.New("ledger cut off in its head"), nil
	}
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, fmt.Errorf("bulk: ledger: %w", err)
	}
	last := len(ledgerMagic) - 1
	switch {
	case string(head[:last]) != ledgerMagic[:last]:
		return errors.New("not a ledger"), nil
	case head[last] > ledgerMagic[last]:
		return nil, fault.New(fault.Unsupported, "bulk: ledger of version %d, written by a newer program", head[last])
	case head[last] != ledgerMagic[last]:
		return errors.New("not a ledger"), nil
	}
	return readRecords(f, size-int64(len(head)), apply)
}

func readRecords(r io.Reader, left int64, apply func(record)) (damaged, err error) {
	var head [recordHead]byte
	var payload []byte
	for left > 0 {
		if left < recordHead {
			return errors.New("record cut off"), nil
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, fmt.Errorf("bulk: ledger: %w", err)
		}
		left -= recordHead
		length := int64(binary.BigEndian.Uint32(head[:]))
		if length > left || length > maxRecord {
			return errors.New("record longer than the ledger"), nil
		}
		if int64(cap(payload)) < length {
			payload = make([]byte, length)
		}
		payload = payload[:length]
		if _, err := io.ReadFull(r, payload); err != nil {
			return nil, fmt.Errorf("bulk: ledger: %w", err)
		}
		left -= length
		rec, ok := parseRecord(payload)
		if checksum(payload) != binary.BigEndian.Uint32(head[4:]) || !ok {
			return errors.New("record does not match its checksum"), nil
		}
		apply(rec)
	}
	return nil, nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
