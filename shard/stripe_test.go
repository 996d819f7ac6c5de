package shard

import (
	"fmt"
	"testing"
)

// Columns follow each other, cover the ciphertext, and differ by a leaf at most.
func TestColumnsCoverTheCiphertextEvenly(t *testing.T) {
	for k := 1; k <= MaxShards; k++ {
		for _, leaves := range []int64{1, 2, 3, 9, 10, 16, 31, 32, 33, 160, 4091} {
			for _, short := range []int64{0, 1, LeafBytes - 1} {
				g, err := NewGeometry(Code{K: k, M: MaxShards - k}, leaves*LeafBytes-short)
				if leaves < int64(k) {
					if err == nil {
						t.Fatalf("%d leaves in %d columns: no error", leaves, k)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				checkColumns(t, g)
			}
		}
	}
}

func checkColumns(t *testing.T, g Geometry) {
	t.Helper()
	at := int64(0)
	for i := range g.K {
		offset, length := g.Column(i)
		if offset != at || length < 1 || offset%LeafBytes != 0 || length != g.ShardBytes(i) {
			t.Fatalf("%v of %d: column %d is [%d, +%d), after %d", g.Code, g.Size, i, offset, length, at)
		}
		if rows := (length + LeafBytes - 1) / LeafBytes; rows != g.Rows() && rows != g.Rows()-1 {
			t.Fatalf("%v of %d: column %d has %d leaves, the longest %d", g.Code, g.Size, i, rows, g.Rows())
		}
		for _, b := range []int64{offset, offset + length/2, offset + length - 1} {
			if column, in := g.Locate(b); column != i || in != b-offset {
				t.Fatalf("%v of %d: byte %d is said to be at %d of column %d, not at %d of %d", g.Code, g.Size, b, in, column, b-offset, i)
			}
		}
		at += length
	}
	if at != g.Size {
		t.Fatalf("%v: columns of %d bytes for %d", g.Code, at, g.Size)
	}
	for i := g.K; i < g.N(); i++ {
		if g.ShardBytes(i) != g.ShardBytes(0) {
			t.Fatalf("%v of %d: parity of %d bytes beside a column of %d", g.Code, g.Size, g.ShardBytes(i), g.ShardBytes(0))
		}
	}
}

// A network's code survives what it says, at every size.
func TestDefaultCodesSurviveTheSitesTheySay(t *testing.T) {
	last := 0
	for sites := range 60 {
		c, survives := Default(sites)
		if err := c.Check(); err != nil {
			t.Errorf("%d sites: %v", sites, err)
		}
		if sites > 0 && c.N() > sites || survives > c.M || survives < last || sites > 0 && survives >= sites {
			t.Errorf("%d sites: %v for the loss of %d, after %d", sites, c, survives, last)
		}
		if small := c.For(SmallBytes); small.K != 1 || small.M != c.M || c.For(SmallBytes+1) != c {
			t.Errorf("%d sites: %v, small packs %v", sites, c, small)
		}
		last = survives
	}
}

func TestNoCodeOutsideItsBounds(t *testing.T) {
	for _, c := range []Code{{}, {K: 0, M: 3}, {K: -1, M: 2}, {K: 1, M: -1}, {K: 12, M: 5}, {K: 1 << 40, M: 1}, {K: 17}} {
		if c.Check() == nil {
			t.Errorf("%v was taken for a code", c)
		}
	}
}

// Groups are of the pack alone, even enough, and those of more groups are parts of
// those of fewer.
func TestPacksSpreadOverGroups(t *testing.T) {
	const groups, packs = 1024, 200_000
	count := make([]int, groups)
	for i := range packs {
		var id [16]byte
		copy(id[:], fmt.Sprintf("%016d", i))
		g := Group(id, groups)
		count[g]++
		if Group(id, 1) != 0 || Group(id, 4*groups)/4 != g {
			t.Fatalf("a pack of group %d of %d is in %d of one, %d of %d", g, groups, Group(id, 1), Group(id, 4*groups), 4*groups)
		}
	}
	for g, n := range count { // of 195; five standard deviations
		if n < 125 || n > 265 {
			t.Errorf("group %d has %d packs", g, n)
		}
	}
}
