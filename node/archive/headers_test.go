package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
)

// row returns an instance's header row.
func (b *bench) row(number uint64) []byte {
	b.t.Helper()
	row, _, err := b.get(keyNumber(rowHeader, number))
	if err != nil {
		b.t.Fatal(err)
	}
	return row
}

// rows counts the rows of a kind.
func (b *bench) rows(kind byte) (n int) {
	b.t.Helper()
	if err := b.each([]byte{kind}, func(_, _ []byte) error { n++; return nil }); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// headed checks that an instance's header record is that of an image.
func (b *bench) headed(m image, number uint64) {
	b.t.Helper()
	want := headerOf(b.t, m)
	if got, ok, err := b.headerRecord(number); err != nil || !ok || !bytes.Equal(got, want) {
		b.t.Errorf("%s: header record of %d bytes, %v, %v; want %d bytes", m.sop, len(got), ok, err, len(want))
	}
}

func TestHeadersOfASeriesRestByReferenceToItsFirst(t *testing.T) {
	mem, keys := vfs.NewMem(), newRing()
	b := open(t, testOptions(mem, keys))
	numbers := map[uint64]image{}
	store := func(n int) []byte {
		m := serial(n)
		number := b.store(m).Number
		numbers[number] = m
		return b.row(number)
	}
	first := store(0)
	for n := 1; n < 4; n++ {
		row := store(n)
		if of, _, like := refersTo(row); !like || len(row) > len(first)/2 || !bytes.Equal(b.row(of), first) {
			t.Errorf("image %d rests in %d bytes, by reference: %v; the first in %d", n, len(row), like, len(first))
		}
	}
	if row := store(4); row[0] != headerWhole {
		t.Error("the first of another series rests by reference")
	}
	b.close()

	b = open(t, testOptions(mem, keys))
	defer b.close()
	store(5)
	for range 2 { // from the log, then from packs
		for number, m := range numbers {
			b.headed(m, number)
		}
		b.sound()
		b.pack()
	}
}

func TestAHeaderThatIsUnlikeItsSeriesRestsWhole(t *testing.T) {
	record := func(seed byte) []byte {
		b := make([]byte, 600)
		x := uint32(seed) + 1
		for i := range b {
			x = x*1664525 + 1013904223
			b[i] = byte(x >> 24)
		}
		return b
	}
	f := newReference(1, record(1))
	if f.like(record(1), wholeHeader(record(1))) == nil {
		t.Error("an equal record is not written by reference")
	}
	if row := f.like(record(2), wholeHeader(record(2))); row != nil {
		t.Errorf("noise is written by reference in %d bytes", len(row))
	}
	if f := newReference(1, record(1)[:9]); f != nil {
		t.Error("a record too short for a dictionary is one")
	}
}

func TestARecordLongerThanADictionaryIsWrittenByReference(t *testing.T) {
	long := bytes.Repeat([]byte("0123456789abcdef"), 3*maxDictionary/16)
	for i := range long {
		long[i] += byte(i / 977)
	}
	f := newReference(1, long)
	other := bytes.Clone(long)
	other[5], other[len(other)-5] = 'x', 'y'
	row := f.like(other, other)
	_, block, ok := refersTo(row)
	if !ok {
		t.Fatal("not written by reference")
	}
	if back, err := f.record(block); err != nil || !bytes.Equal(back, other) {
		t.Errorf("came back different: %v", err)
	}
}

func TestAHeaderRowStaysUntilNoneRefersToIt(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	var numbers []uint64
	for n := range 4 {
		numbers = append(numbers, b.store(serial(n)).Number)
	}
	b.pack()
	remove := func(n int) {
		t.Helper()
		m := serial(n)
		if err := b.Delete(ctx, m.study, m.series, m.sop, "test"); err != nil {
			t.Fatal(err)
		}
		if err := b.purge(ctx, purgeTime(b)); err != nil {
			t.Fatal(err)
		}
	}
	remove(0) // the one that the others refer to
	if b.row(numbers[0]) == nil || b.rows(rowKept) != 1 || b.rows(rowReference) != 3 {
		t.Fatalf("%d rows are kept, %d refer to it", b.rows(rowKept), b.rows(rowReference))
	}
	b.headers.read.Drop()
	for n := 1; n < 4; n++ {
		b.headed(serial(n), numbers[n])
	}
	late := serial(0)
	late.sop += ".9"
	if row := b.row(b.store(late).Number); row[0] != headerWhole {
		t.Error("an arrival refers to an instance that was dropped")
	}
	b.sound()
	for n := 1; n < 4; n++ {
		remove(n)
	}
	for _, number := range numbers {
		if b.row(number) != nil {
			t.Errorf("header row %d is left", number)
		}
	}
	if b.rows(rowKept) != 0 || b.rows(rowReference) != 0 {
		t.Errorf("%d rows are kept, %d references left", b.rows(rowKept), b.rows(rowReference))
	}
}

func TestNoArrivalRefersToAHeaderThatGoesMeanwhile(t *testing.T) {
	ctx := context.Background()
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	var wg sync.WaitGroup
	for sender := range 4 {
		wg.Go(func() {
			for n := range 25 {
				m := serial(0)
				m.sop = fmt.Sprintf("1.2.0.0.%d.%d", sender, n)
				number := b.store(m).Number
				if n%3 == 0 { // among them those that others refer to
					if err := b.setState(number, archivepb.State_DROPPED); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := b.purge(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	b.headers.read.Drop()
	b.sound()
}

func TestADanglingReferenceIsCorruptAndVerifyNamesIt(t *testing.T) {
	b := open(t, testOptions(vfs.NewMem(), newRing()))
	defer b.close()
	first, second := b.store(serial(0)).Number, b.store(serial(1)).Number
	if err := b.unset(keyReference(first, second)); err != nil {
		t.Fatal(err)
	}
	report, err := b.Verify(context.Background(), nil)
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Kind != "reference" {
		t.Errorf("findings: %+v, %v", report.Findings, err)
	}
	b.headers.read.Drop()
	if err := b.unset(keyNumber(rowHeader, first)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.storedHeader(second); !fault.Is(err, fault.Corrupt) {
		t.Errorf("error %v, want corrupt", err)
	}
}

// unset deletes a row.
func (b *bench) unset(key []byte) error { return b.Archive.store.Delete(key, nil) }

// headerOf is the header record of an image.
func headerOf(t testing.TB, m image) []byte {
	t.Helper()
	in := m.incoming(m.encode(t))
	syntax, err := storedSyntax(in.Syntax)
	if err != nil {
		t.Fatal(err)
	}
	h, err := dicom.ReadHeader(in.Body, syntax, dicom.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	record, err := h.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// Any encoder's rows must be read for ever; how short they are may change.
func TestHeaderRowsOfVersion1AreRead(t *testing.T) {
	whole, err := os.ReadFile(filepath.Join("testdata", "header_row_whole.bin"))
	if err != nil {
		t.Fatal(err)
	}
	like, err := os.ReadFile(filepath.Join("testdata", "header_row_like.bin"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := openWhole(whole)
	if err != nil || !bytes.Equal(first, headerOf(t, serial(0))) {
		t.Errorf("the whole row gives another record: %v", err)
	}
	of, block, ok := refersTo(like)
	if !ok || of != 0x0102030405060708 {
		t.Fatalf("refers to %x: %v", of, ok)
	}
	if second, err := newReference(of, first).record(block); err != nil || !bytes.Equal(second, headerOf(t, serial(1))) {
		t.Errorf("the row by reference gives another record: %v", err)
	}
}

func FuzzHeaderRow(f *testing.F) {
	record := bytes.Repeat([]byte("header record "), 20)
	reference := newReference(7, record)
	f.Add(wholeHeader(record))
	f.Add(reference.like(record, record))
	f.Add([]byte{headerWhole})
	f.Add([]byte{headerLike})
	f.Add(binary.AppendUvarint([]byte{headerWhole}, 1<<40))
	f.Fuzz(func(t *testing.T, row []byte) {
		_, block, like := refersTo(row)
		decode := func() ([]byte, error) { return openWhole(row) }
		if like {
			decode = func() ([]byte, error) { return reference.record(block) }
		}
		got, err := decode()
		if err != nil {
			if !fault.Is(err, fault.Corrupt) && !fault.Is(err, fault.Unsupported) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		if len(got) > maxHeader {
			t.Fatalf("%d bytes", len(got))
		}
		if back, err := openWhole(wholeHeader(got)); err != nil || !bytes.Equal(back, got) {
			t.Fatalf("does not come back: %v", err)
		}
	})
}
