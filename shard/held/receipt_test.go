package held

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/shard/bulk"
	"pelago/shard/scrub"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// fixed are entries and a signer that never change.
func fixed() (testSigner, []Entry) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	a, b := Entry{Root: [32]byte{1, 2}}, Entry{Root: [32]byte{3}}
	a.Pack, a.Generation, a.Index = [16]byte{0: 1, 15: 0xff}, 1, 0
	b.Pack, b.Generation, b.Index = [16]byte{0: 1, 15: 0xff}, 300, 5
	return testSigner{key}, []Entry{a, b}
}

// Receipts, rows and messages are read as they were written (docs/formats/held.md,
// docs/formats/peer.md).
func TestFormatsAreGolden(t *testing.T) {
	self, entries := fixed()
	receipt := signReceipt(self, entries)
	b, err := receipt.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	ref := bulk.Ref{Space: bulk.Held, Table: 300, Blob: 7, Bytes: 70_000}
	n := entries[1].Name
	rows := []row{
		{state: Held, root: entries[1].Root, ref: ref, when: 1_800_000_000},
		{state: Lost, root: entries[1].Root, ref: ref, when: 1_800_000_000, detail: []byte("rotten")},
		{state: Dropped, root: entries[1].Root, ref: ref, when: 1_800_000_000, detail: Superseded{301, [32]byte{9}}.append(nil)},
		{state: Dropped, root: entries[1].Root, ref: ref, when: 1_800_000_000, detail: Moved{Receipt: receipt}.append(nil)},
		{state: Dropped, root: entries[1].Root, ref: ref, when: 1_800_000_000, detail: Purged{1 << 40}.append(nil)},
	}
	claims := []Claim{{entries[0], 70_000}, {entries[1], 1 << 33}}
	landed, err := appendLanded(nil, &Landed{Outcomes: []Outcome{Stored, Known}, Receipt: receipt})
	if err != nil {
		t.Fatal(err)
	}
	place := Scrub{scrub.Pass{Began: time.Unix(1_800_000_000, 0), Finished: time.Unix(1_700_000_000, 0), Read: 1 << 40}, ref}
	listed := []Status{{Entry: entries[0], State: Held, Bytes: 70_000}, {Entry: entries[1], State: Lost, Bytes: 8}}
	var out strings.Builder
	line := func(name string, b []byte) { fmt.Fprintln(&out, name, hex.EncodeToString(b)) }
	line("receipt", b)
	for _, key := range []string{keyShard(n), keyBlob(ref), keyLost(n), keyGoing(ref), keyDropped(1_800_000_000, n)} {
		line("key", []byte(key))
	}
	for _, r := range rows {
		line("row", r.append(nil))
	}
	line("scrub", place.append(nil))
	line("upload", appendClaims(nil, claims))
	line("ask", appendEntries(nil, entries))
	line("landed", landed)
	line("challenges", appendChallenges(nil, []Challenge{{n, 77}}))
	line("listed", appendListed(nil, listed, true))
	path := filepath.Join("testdata", "formats.hex")
	if *rewrite {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("a form has changed:\n%s", out.String())
	}
	again, err := ParseReceipt(b)
	if err != nil || again.Verify(self.key.Public().(ed25519.PublicKey)) != nil || !slices.Equal(again.Entries, entries) {
		t.Errorf("the receipt reads back as %+v, %v", again, err)
	}
	for _, r := range rows {
		got, err := parseRow(r.append(nil))
		if err != nil || !bytes.Equal(got.append(nil), r.append(nil)) {
			t.Errorf("a row reads back as %+v, %v", got, err)
		}
		if r.state == Dropped {
			if why, err := parseReason(r.detail); err != nil || !bytes.Equal(why.append(nil), r.detail) {
				t.Errorf("a reason reads back as %v, %v", why, err)
			}
		}
	}
	if got := parseScrub(place.append(nil)); !bytes.Equal(got.append(nil), place.append(nil)) {
		t.Errorf("scrub's place reads back as %+v", got)
	}
	if got, more, err := readListed(bytes.NewReader(appendListed(nil, listed, true))); err != nil || !more || !slices.Equal(got, listed) {
		t.Errorf("a list reads back as %+v, %v", got, err)
	}
}

// Whatever of a receipt is changed, it is refused.
func TestAReceiptHoldsForWhatWasSignedOnly(t *testing.T) {
	self, entries := fixed()
	public := self.key.Public().(ed25519.PublicKey)
	b, err := signReceipt(self, entries).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if r, err := ParseReceipt(changed); err == nil && r.Verify(public) == nil {
			t.Errorf("holds with another byte %d", i)
		}
	}
	for _, cut := range []int{0, 1, receiptHead - 1, receiptHead, len(b) - 1} {
		if _, err := ParseReceipt(b[:cut]); !fault.Is(err, fault.Invalid) {
			t.Errorf("cut to %d bytes: %v", cut, err)
		}
	}
	r, err := ParseReceipt(b)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Covers(entries[0]) || !r.Covers(entries[1]) {
		t.Error("does not cover what it lists")
	}
	other := entries[0]
	other.Root[5] ^= 1
	next := entries[0]
	next.Index++
	if r.Covers(other) || r.Covers(next) {
		t.Error("covers what it does not list")
	}
	if _, err := (&Receipt{Holder: self.ID(), Entries: []Entry{entries[1], entries[0]}}).AppendBinary(nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("descending entries: %v", err)
	}
	if strange, _ := otherKey(t); r.Verify(strange) == nil || r.Verify(nil) == nil {
		t.Error("holds with another key")
	}
}

func TestNewerRowsAreRefused(t *testing.T) {
	r := row{state: Held}
	b := r.append(nil)
	b[0] = rowVersion + 1
	if _, err := parseRow(b); !fault.Is(err, fault.Unsupported) {
		t.Errorf("%v, want unsupported", err)
	}
	for _, b := range [][]byte{nil, {1}, r.append(nil)[:rowHead-1], make([]byte, rowHead)} {
		if _, err := parseRow(b); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%d bytes: %v, want corrupt", len(b), err)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	self, entries := fixed()
	b, _ := signReceipt(self, entries).AppendBinary(nil)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		again, err := r.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("read %x, written as %x, %v", b, again, err)
		}
	})
}

func FuzzRow(f *testing.F) {
	one := row{state: Dropped, detail: Purged{9}.append(nil)}
	f.Add(one.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRow(b); err == nil {
			if !bytes.Equal(r.append(nil), b) {
				t.Fatalf("read %x, written as %x", b, r.append(nil))
			}
			if why, err := parseReason(r.detail); err == nil && !bytes.Equal(why.append(nil), r.detail) {
				t.Fatalf("reason %x, written as %x", r.detail, why.append(nil))
			}
		}
		place := parseScrub(b)
		place.append(nil)
	})
}

// FuzzMessages reads what nodes send each other.
func FuzzMessages(f *testing.F) {
	self, entries := fixed()
	receipt := signReceipt(self, entries)
	landed, _ := appendLanded(nil, &Landed{Outcomes: []Outcome{Stored, Known}, Receipt: receipt})
	for _, b := range [][]byte{
		appendClaims(nil, []Claim{{entries[0], 5}}), appendEntries(nil, entries), landed,
		appendChallenges(nil, []Challenge{{entries[0].Name, 3}}), appendListed(nil, []Status{{Entry: entries[0], State: Held}}, false),
		appendProof(nil, [][32]byte{{1}, {2}}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if claims, err := readClaims(bytes.NewReader(b)); err == nil {
			checkClaims(claims)
		}
		readEntries(bytes.NewReader(b))
		readChallenges(bytes.NewReader(b))
		readListed(bytes.NewReader(b))
		readProof(bytes.NewReader(b))
		if l, err := parseLanded(b, entries); err == nil && l.Receipt != nil {
			for i, o := range l.Outcomes {
				if o.Here() != l.Receipt.Covers(entries[i]) {
					t.Fatalf("%v, but covered: %v", o, l.Receipt.Covers(entries[i]))
				}
			}
		}
	})
}
