package spread

import (
	"testing"

	"pelago/replication/catalog"
	"pelago/shard"
	"pelago/shard/pack"
)

const large = 3 << 20

func TestAPackIsSealedWithAllItsShards(t *testing.T) {
	for sites := 2; sites <= 7; sites++ {
		code, _ := shard.Default(sites)
		inWorld(t, sites, func(t *testing.T, w *world) {
			w.start()
			var ids []pack.ID
			for n := range 6 {
				ids = append(ids, w.pack(n, large+n*100_000))
			}
			small := w.pack(7, 40_000)
			for _, id := range ids {
				f := w.settled(id, code)
				if f.Revision != 0 || len(f.Elsewhere) > 0 {
					t.Errorf("%v: told otherwise at first: %+v", code, f)
				}
				row := rowOf(w.place.State(), &f.SealFact)
				want := catalog.NoShard
				for i, n := range row[:code.N()] {
					if n.ID == self {
						want = i
					}
				}
				if f.Virtual != want {
					t.Errorf("%v: shard %d is virtual, not %d", code, f.Virtual, want)
				}
			}
			w.settled(small, shard.Code{K: 1, M: code.M})
		})
	}
}
