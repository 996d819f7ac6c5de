package spread

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/stripe"
)

var rewrite = flag.Bool("rewrite", false, "write golden files")

// goldenRecords are rows of each form.
func goldenRecords() map[string]*record {
	head := &stripe.Head{
		Stripe: shard.Stripe{Pack: [16]byte{1, 2, 3, 15: 9}, Generation: 2}, Code: shard.Code{K: 2, M: 1}, Size: 100_000, Plaintext: 99_888, Manifest: 98_000,
		Key: [16]byte{4, 5, 6}, Origin: "origin",
	}
	for i := range 3 {
		head.Roots = append(head.Roots, [32]byte{7, byte(i)})
	}
	head.Pack, head.Tail = [32]byte{8}, [32]byte{9}
	own := &record{head: head, at: []string{"origin", "", "substitute"}, number: 300, told: 4}
	own.seal = catalog.SealFact{
		By: "origin", Study: "1.2", Series: "1.2.3", Stripe: head.Stripe, Origin: "origin", Key: head.Key, Size: head.Size, Instances: 17, Code: head.Code,
		Root: head.Root(), Revision: 5, Base: 3, Layout: 12, Receipts: 0b101, Virtual: 0, Elsewhere: []catalog.Elsewhere{{Shard: 2, Node: "substitute"}},
		Withdrawn: 1, Survives: 1,
	}
	other := &record{seal: own.seal, number: 1, told: 5}
	other.seal.Origin, other.seal.Root, other.seal.Virtual, other.seal.Elsewhere = "another", [32]byte{10}, catalog.NoShard, nil
	return map[string]*record{"own": own, "other": other}
}

func TestRowsAreAsTheyWereReleased(t *testing.T) {
	for name, r := range goldenRecords() {
		b, err := r.encode()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "record_"+name+".hex")
		if *rewrite {
			if err := os.WriteFile(path, fmt.Appendln(nil, hex.EncodeToString(b)), 0o644); err != nil { //nolint:gosec // a golden file
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if want, err := hex.DecodeString(strings.TrimSpace(string(golden))); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %x of %x, %v", name, b, want, err)
		}
		back, err := decodeRecord(r.seal.Stripe, b)
		if err != nil || !reflect.DeepEqual(back, r) {
			t.Errorf("%s: %+v of %+v, %v", name, back, r, err)
		}
		for n := range b {
			if _, err := decodeRecord(r.seal.Stripe, b[:n]); !fault.Is(err, fault.Corrupt) {
				t.Errorf("%s, cut at %d: %v", name, n, err)
			}
		}
		if _, err := decodeRecord(r.seal.Stripe, append(b, 0)); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s, and a byte: %v", name, err)
		}
		b[0]++
		if _, err := decodeRecord(r.seal.Stripe, b); !fault.Is(err, fault.Unsupported) {
			t.Errorf("%s, newer: %v", name, err)
		}
	}
	if _, err := decodeRecord(shard.Stripe{Generation: 1}, mustEncode(t, goldenRecords()["own"])); !fault.Is(err, fault.Corrupt) {
		t.Errorf("under another name: %v", err)
	}
	of := shard.Stripe{Pack: [16]byte{1, 15: 2}, Generation: 3}
	for _, k := range []struct{ got, want string }{
		{keyStripe(of), "7301000000000000000000000000000002" + "00000003"}, {keyFact(258), "660000000000000102"}, {keyKey(of.Pack), "6b01000000000000000000000000000002"},
	} {
		if hex.EncodeToString([]byte(k.got)) != k.want {
			t.Errorf("key %x of %s", k.got, k.want)
		}
	}
}

func mustEncode(t testing.TB, r *record) []byte {
	t.Helper()
	b, err := r.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever is in a row, it is read or refused, and says the same when it is written.
func FuzzRecord(f *testing.F) {
	for _, r := range goldenRecords() {
		f.Add(mustEncode(f, r))
	}
	of := goldenRecords()["own"].seal.Stripe
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(of, b)
		if err != nil {
			return
		}
		again, err := decodeRecord(of, mustEncode(t, r))
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v of %+v, %v", again, r, err)
		}
	})
}
