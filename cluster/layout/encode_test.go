package layout

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// golden are layouts whose bytes are kept: of one node, of three, and of a change by
// which groups are divided.
func golden(t testing.TB) []*Layout {
	alone := compute(t, nil, []Holder{{Node: Node{ID: "alone", Site: "Mercy", Pledge: 1}}}, 1)
	holders := network(24)
	holders[7].Site, holders[9].Pledge = "St. Mary’s", 20*terabyte
	holders[20].Site = holders[21].Site
	first := compute(t, nil, holders, 12)
	return []*Layout{alone, compute(t, nil, network(3), 2), first, compute(t, first, append(network(28)[24:], holders[2:]...), 14)}
}

// The bytes of a layout are those of this file: of the format, and of what Compute
// makes of the same network on any machine. Of long rows only the beginnings stand there.
func TestGoldenLayouts(t *testing.T) {
	var got strings.Builder
	for _, l := range golden(t) {
		b, err := l.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		head := len(b) - l.rowBytes()
		fmt.Fprintf(&got, "version %d, %d nodes: head %x, %d bytes of rows %x, sha256 %x\n",
			l.Version, len(l.Nodes), b[:head], l.rowBytes(), b[head:min(len(b), head+768)], sha256.Sum256(b))
	}
	name := filepath.Join("testdata", "golden.txt")
	if *rewrite {
		if err := os.WriteFile(name, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the golden layouts are\n%s, want\n%s", got.String(), want)
	}
}

// tiny is small enough to be broken byte by byte.
func tiny(t *testing.T) []byte {
	b, err := compute(t, nil, network(3), 2).MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOtherBytesThanALayoutsAreRefused(t *testing.T) {
	good := tiny(t)
	if _, err := Parse(good); err != nil {
		t.Fatal(err)
	}
	for cut := range good {
		if _, err := Parse(good[:cut]); !fault.Is(err, fault.Invalid) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	if _, err := Parse(append(bytes.Clone(good), 0)); !fault.Is(err, fault.Invalid) {
		t.Errorf("one byte more: %v", err)
	}
	if _, err := Parse(make([]byte, MaxBytes+1)); !fault.Is(err, fault.Invalid) {
		t.Errorf("too long: %v", err)
	}
	if _, err := Parse([]byte{2, 1}); !fault.Is(err, fault.Unsupported) {
		t.Errorf("newer: %v", err)
	}
	// Fields by offset: 0 format, 1 version, 2 shards, 3 groups, 4 sites; then site00
	// of 6, one node: node00 of 6, a pledge of 7 bytes; rows from 4+1+3*22 on.
	const rows = 5 + 3*22
	for name, change := range map[string]func(b []byte) []byte{
		"version 0":                 func(b []byte) []byte { b[1] = 0; return b },
		"a long spelling":           func(b []byte) []byte { return append([]byte{1, 0x81, 0}, b[2:]...) },
		"no shards":                 func(b []byte) []byte { b[2] = 0; return b },
		"more shards than sites":    func(b []byte) []byte { b[2] = 4; return b },
		"another number of groups":  func(b []byte) []byte { b[3] = 11; return b },
		"the same number otherwise": func(b []byte) []byte { b[3] = 42; return b },
		"fewer sites":               func(b []byte) []byte { b[4] = 2; return b },
		"too many sites":            func(b []byte) []byte { return append(append(bytes.Clone(b[:4]), 0x81, 4), b[5:]...) },
		"no site name":              func(b []byte) []byte { b[5] = 0; return b },
		"a site twice":              func(b []byte) []byte { copy(b[5+22:], b[5:5+7]); return b },
		"sites out of order":        func(b []byte) []byte { b[11] = '9'; return b },
		"a site without a node":     func(b []byte) []byte { b[12] = 0; return b },
		"a node twice":              func(b []byte) []byte { copy(b[5+22+8:], b[5+8:5+15]); return b },
		"no node of that number":    func(b []byte) []byte { b[rows] |= 0xc0; return b },
		"a node twice in a row":     func(b []byte) []byte { b[rows] = b[rows]&0x0f | 0x50; return b },
		"no pledge":                 func(b []byte) []byte { return append(append(bytes.Clone(b[:20]), 0), b[27:]...) },
	} {
		if l, err := Parse(change(bytes.Clone(good))); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

// The largest layouts that networks may have stay within a decision.
func TestLayoutsFitInADecision(t *testing.T) {
	holders := make([]Holder, 300)
	for i := range holders {
		// Names of 64 characters that take 4 bytes each, ids as long as nodes have them.
		holders[i].Node = Node{ID: fmt.Sprintf("%032d", i), Site: strings.Repeat("\U0001F3E5", 63) + fmt.Sprintf("%04d", i), Pledge: MaxPledge}
	}
	nodes, err := holding(holders)
	if err != nil {
		t.Fatal(err)
	}
	l := &Layout{Version: 1 << 63, Shards: 14, Groups: ManyGroups, Nodes: nodes, width: MaxRow}
	if l.size() > MaxBytes {
		t.Errorf("%d bytes", l.size())
	}
	t.Logf("300 sites with the longest names: %d bytes, of which rows %d", l.size(), l.rowBytes())
}

func TestAViewIsOneLayoutOrTwoThatFollow(t *testing.T) {
	first := compute(t, nil, network(9), 6)
	second := compute(t, first, network(8), 6)
	third := compute(t, second, network(10), 6)
	var records [][]byte
	for _, l := range []*Layout{first, second, third} {
		b, _ := l.MarshalBinary()
		records = append(records, b)
	}
	if v, err := ReadView(nil); err != nil || v.New != nil || v.Old != nil || v.Candidates(1, 0) != nil {
		t.Errorf("of none: %+v, %v", v, err)
	}
	if v, err := ReadView(records[1:2]); err != nil || v.New.Version != 2 || v.Old != nil {
		t.Errorf("of one: %+v, %v", v, err)
	}
	for name, b := range map[string][][]byte{
		"three": records, "two that do not follow": {records[0], records[2]}, "one twice": {records[0], records[0]}, "another thing": {{1}},
	} {
		if _, err := ReadView(b); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	v, err := ReadView([][]byte{records[2], records[1]})
	if err != nil {
		t.Fatal(err)
	}
	checkCandidates(t, v, Diff(second, third, 6))
	if RecordName(255) != "00000000000000ff" {
		t.Error(RecordName(255))
	}
}

// checkCandidates checks that readers ask who has a shard by the new row, and by the
// old one if that is another.
func checkCandidates(t *testing.T, v View, moves []Move) {
	moved := map[[2]int]Move{}
	for _, m := range moves {
		moved[[2]int{m.Group, m.Position}] = m
	}
	for g := range v.New.Groups {
		spread := uint64(g)<<54 | 0x3ffff
		for i := range 6 {
			want := []string{v.New.At(g, i).ID}
			if m, ok := moved[[2]int{g, i}]; ok {
				want = append(want, m.From.ID)
				if m.To.ID != want[0] || m.From.ID == want[0] {
					t.Fatalf("group %d, position %d: %+v, and the row says %s", g, i, m, want[0])
				}
			}
			var got []string
			for _, node := range v.Candidates(spread, i) {
				got = append(got, node.ID)
			}
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Fatalf("group %d, shard %d: %v, not %v", g, i, got, want)
			}
		}
	}
	if len(moves) == 0 || v.Candidates(0, MaxRow) != nil || v.Candidates(0, -1) != nil {
		t.Error("nobody has what no row has")
	}
}

// Moves between numbers of groups are listed among the larger.
func TestDiffOfDividedGroups(t *testing.T) {
	few := compute(t, nil, network(24), 12)
	many := compute(t, few, network(25), 14)
	moves := Diff(few, many, 12)
	for _, m := range moves {
		if m.From != few.At(m.Group/4, m.Position) || m.To != many.At(m.Group, m.Position) || m.Position >= 12 {
			t.Fatalf("%+v", m)
		}
	}
	back := Diff(many, few, 12)
	if len(moves) == 0 || len(back) != len(moves) || back[0].From != moves[0].To || back[0].Group != moves[0].Group {
		t.Errorf("%d moves, %d back", len(moves), len(back))
	}
	if some := Diff(few, many, 16); len(some) < len(moves) {
		t.Errorf("%d of 16 shards, %d of 12", len(some), len(moves))
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range golden(f)[:3] {
		b, _ := l.MarshalBinary()
		f.Add(b)
	}
	short, _ := hex.DecodeString("0101010a0105536974653101026e3101")
	f.Add(short)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		again, err := l.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%d bytes are read and written as %d: %v", len(b), len(again), err)
		}
		for g := range l.Groups {
			seen := map[string]bool{}
			for _, node := range l.Row(g) {
				if seen[node.Site] {
					t.Fatalf("a site is twice in the row of group %d", g)
				}
				seen[node.Site] = true
			}
		}
		if c := l.Capacity(); c.Bytes < 0 || c.Bytes > c.Pledged {
			t.Fatalf("%+v", c)
		}
	})
}
