package archive

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/shard/bulk/bulktest"
)

// flush puts what store/ has into tables.
func (b *bench) flush() {
	b.t.Helper()
	if err := b.Archive.store.Flush(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Archive.store.Compact(b.t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		b.t.Fatal(err)
	}
}

// headerBlock is where a byte of a block of a closed archive's store/ lies that
// holds nothing but header rows, several of them.
func headerBlock(t *testing.T, mem *vfs.MemFS, images int) (name string, at int64) {
	t.Helper()
	names, err := mem.List("data/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		name = "data/store/" + name
		info, err := mem.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(100); at < info.Size(); at += 2000 {
			fs := mem.CrashClone(vfs.CrashCloneCfg{})
			bulktest.Rot(t, fs, name, at)
			if headers, others := unreadable(fs, images); headers > 2 && headers < images && !others {
				return name, at
			}
		}
	}
	t.Fatal("no block of store/ holds header rows alone")
	return "", 0
}

// unreadable counts the header rows that store/ does not give, and reports
// whether it lacks anything else.
func unreadable(fs *vfs.MemFS, images int) (headers int, others bool) {
	o := testOptions(fs.CrashClone(vfs.CrashCloneCfg{}), nil)
	o.setDefaults()
	db, err := openStore(o, "data/store", func(error) {}, func(pebble.DataCorruptionInfo) {})
	if err != nil {
		return 0, true
	}
	a := &Archive{store: db}
	defer db.Close()
	for n := range uint64(images) {
		if _, _, err := a.get(keyNumber(rowHeader, n+1)); err != nil {
			headers++
		}
	}
	for row := range byte(0x7f) {
		if row == rowHeader {
			continue
		}
		others = others || a.each([]byte{row}, func(_, _ []byte) error { return nil }) != nil
	}
	return headers, others
}

func TestARottenBlockOfHeadersIsMadeAnewFromTheBytes(t *testing.T) {
	const count = 400
	for _, packed := range []bool{false, true} {
		mem, keys := vfs.NewCrashableMem(), newRing()
		b := open(t, testOptions(mem, keys))
		var images []image
		var numbers []uint64
		for n := range count {
			m := serial(n)
			images = append(images, m)
			numbers = append(numbers, b.store(m).Number)
		}
		if packed {
			b.pack()
		}
		b.flush()
		b.close()
		name, at := headerBlock(t, mem, count)
		for _, background := range []bool{false, true} {
			fs := mem.CrashClone(vfs.CrashCloneCfg{})
			bulktest.Rot(t, fs, name, at)
			o := testOptions(fs, keys)
			o.Fatal = func(err error) { t.Errorf("packed %v: the process ends: %v", packed, err) }
			a, err := openAlone(o)
			if err != nil {
				t.Fatal(err)
			}
			before, err := a.VerifyAlone(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			rotten := 0
			for _, f := range before.Findings {
				if f.Kind == "header" {
					rotten++
				}
			}
			if rotten < 3 || a.stats.HeadersMended.Load() != 0 {
				t.Errorf("packed %v: verify names %d rotten headers and mends %d", packed, rotten, a.stats.HeadersMended.Load())
			}
			if background {
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- a.Run(ctx) }()
				for a.stats.HeadersMended.Load() == 0 || !a.readable(numbers) {
					a.journal.Settle(ctx) //nolint:errcheck // only to wait
				}
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			b := &bench{Archive: a, t: t}
			for i, m := range images {
				if _, err := b.Headers(t.Context(), Ref{Number: numbers[i]}); err != nil {
					t.Errorf("packed %v: %s: %v", packed, m.sop, err)
				}
				b.same(m)
				b.headed(m, numbers[i])
			}
			for _, f := range must(b.VerifyAlone(t.Context(), nil)).Findings {
				t.Errorf("packed %v, after mending: %+v", packed, f)
			}
			if err := closeAlone(a); err != nil {
				t.Error(err)
			}
		}
	}
}

func must(r *Report, err error) *Report {
	if err != nil {
		panic(err)
	}
	return r
}

// readable reports whether store/ gives the headers of all instances.
func (a *Archive) readable(numbers []uint64) bool {
	for _, n := range numbers {
		if _, _, err := a.storedHeader(n); err != nil {
			return false
		}
	}
	return true
}

func TestAHeaderIsNotMadeOfOtherBytes(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	number := b.store(serial(0)).Number
	r, _, err := b.instance(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.unset(keyNumber(rowHeader, number)); err != nil {
		t.Fatal(err)
	}
	r.Hash = append([]byte(nil), r.Hash...)
	r.Hash[0] ^= 1
	if _, _, err := b.readHeader(t.Context(), r); !fault.Is(err, fault.Corrupt) {
		t.Errorf("error %v, want corrupt", err)
	}
	if b.row(number) != nil {
		t.Error("a header row was written")
	}
}

func TestTheHeaderOfADroppedInstanceDoesNotComeBack(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	number := b.store(serial(0)).Number
	r, _, err := b.instance(number)
	if err != nil {
		t.Fatal(err)
	}
	_, record, err := b.remakeHeader(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.setState(number, archivepb.State_DROPPED); err != nil {
		t.Fatal(err)
	}
	if err := b.putMended(number, record); !fault.Is(err, fault.NotFound) {
		t.Errorf("error %v, want not found", err)
	}
	if b.row(number) != nil {
		t.Error("its header row is back")
	}
	if _, err := b.Headers(t.Context(), Ref{Number: number}); !fault.Is(err, fault.NotFound) {
		t.Errorf("its header is read: %v", err)
	}
}

// The row that a series refers to is mended, and with it all others; if it has
// no bytes any more, each of the others is.
func TestAHeaderThatOthersReferToIsMended(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		b := openPurged(t, testOptions(vfs.NewMem(), newRing()))
		var numbers []uint64
		for n := range 4 {
			numbers = append(numbers, b.store(serial(n)).Number)
		}
		whole := b.row(numbers[0])
		if dropped {
			if err := b.setState(numbers[0], archivepb.State_DROPPED); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Archive.store.Set(keyNumber(rowHeader, numbers[0]), []byte{headerWhole, 0xff}, nil); err != nil {
			t.Fatal(err)
		}
		b.headers.read.Drop()
		for i, n := range numbers[1:] {
			if _, err := b.Headers(t.Context(), Ref{Number: n}); err != nil {
				t.Errorf("dropped %v: %v", dropped, err)
			}
			b.headed(serial(i+1), n)
		}
		if mended := b.stats.HeadersMended.Load(); mended != map[bool]uint64{false: 1, true: 3}[dropped] {
			t.Errorf("dropped %v: %d rows were mended", dropped, mended)
		}
		if !dropped && string(b.row(numbers[0])) != string(whole) {
			t.Error("the row came back different")
		}
		if dropped {
			if b.rows(rowKept) != 1 || b.rows(rowReference) != 3 {
				t.Errorf("%d rows are kept for %d", b.rows(rowKept), b.rows(rowReference))
			}
			if err := b.purge(t.Context(), purgeTime(b)); err != nil {
				t.Fatal(err)
			}
			if b.row(numbers[0]) != nil || b.rows(rowKept) != 0 || b.rows(rowReference) != 0 {
				t.Error("a dropped instance's header stays although none refers to it any more")
			}
			b.sound()
		}
		b.close()
	}
}

// A span is gone through once: what cannot be mended in it is met by that, and
// would call for it again.
func TestRotThatWasGoneThroughDoesNotCallAgain(t *testing.T) {
	called := func(r *rot, span numbers) bool {
		var info pebble.DataCorruptionInfo
		info.Bounds.Start, info.Bounds.End.Key = keyNumber(rowHeader, span.first), keyNumber(rowHeader, span.last)
		r.note(info)
		select {
		case <-r.found:
			return true
		default:
			return false
		}
	}
	r := &rot{found: make(chan struct{}, 1)}
	if !called(r, numbers{10, 20}) {
		t.Fatal("nobody is called")
	}
	if got := r.take(); !slices.Equal(got, []numbers{{10, 20}}) {
		t.Errorf("taken: %v", got)
	}
	for _, span := range []numbers{{10, 20}, {12, 13}} {
		if called(r, span) || r.take() != nil {
			t.Errorf("%v calls again", span)
		}
	}
	if !called(r, numbers{15, 21}) {
		t.Error("what goes beyond it does not call")
	}
	for n := range uint64(10 * maxRot) {
		called(r, numbers{1000 + 10*n, 1001 + 10*n})
		r.take()
	}
	if len(r.gone) > maxRot || called(r, numbers{1000 + 10*maxRot, 1001 + 10*maxRot}) {
		t.Errorf("%d spans are remembered, or one of them is not", len(r.gone))
	}
}
