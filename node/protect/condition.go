package protect

import (
	"slices"

	"pelago/cluster/fault"
	"pelago/replication/catalog"
)

// proof is a shard that its holder has shown just now: by its receipt and a leaf that
// leads to the shard's root, or, for the virtual shard, by its copy.
type proof struct {
	index      int
	node, site string
	cut        bool // from the origin's copy
}

// evidence is what was confirmed of one stripe, by calls that were answered.
type evidence struct {
	shards []proof
	// keepers are the sites of members at which the seal is applied, and which can
	// open what the stripe holds. A site may be named more than once.
	keepers []string
}

// lacks returns what is missing for a stripe to survive the loss of any t sites
// (DESIGN §2, storage commitment success), fault.Unavailable, or nil: nothing is.
// carries says which shards have the manifest with them.
func lacks(seal *catalog.SealFact, carries func(index int) bool, t int, e evidence, b bug) error {
	code, enough := seal.Code, seal.Code.K+t
	if b == bugJustEnough {
		enough = seal.Code.K
	}
	var all, manifest []proof
	for _, p := range e.shards {
		if p.index < 0 || p.index >= code.N() || p.site == "" {
			continue
		}
		if b == bugNodes {
			p.site = p.node
		}
		if p.cut && (p.index != seal.Virtual || p.node != seal.Origin) {
			continue // a copy stands for one shard of the stripe, at the place that the seal gives it
		}
		all = append(all, p)
		if carries(p.index) {
			manifest = append(manifest, p)
		}
	}
	if have := apart(all); have < enough {
		return fault.New(fault.Unavailable, "%d shards of %v are shown on as many sites, of %d", have, seal.Stripe, enough)
	}
	if have := apart(manifest); have < t+1 && b != bugNoManifest {
		return fault.New(fault.Unavailable, "the manifest of %v is shown on %d sites, of %d", seal.Stripe, have, t+1)
	}
	sites := slices.Clone(e.keepers)
	slices.Sort(sites)
	if have := len(slices.Compact(sites)); have < t+1 {
		return fault.New(fault.Unavailable, "the seal and the key of %v are confirmed by %d sites, of %d", seal.Stripe, have, t+1)
	}
	return nil
}

// apart is the largest number of different shards that are on as many different
// sites: a site counts once, however many nodes and shards it has, and so does a
// shard, on however many sites it is. (A maximum matching, by augmenting paths.)
func apart(shards []proof) int {
	sites := map[int][]string{}
	for _, p := range shards {
		if !slices.Contains(sites[p.index], p.site) {
			sites[p.index] = append(sites[p.index], p.site)
		}
	}
	at := map[string]int{} // site → shard that counts there
	var place func(index int, tried map[string]bool) bool
	place = func(index int, tried map[string]bool) bool {
		for _, site := range sites[index] {
			if tried[site] {
				continue
			}
			tried[site] = true
			if other, taken := at[site]; !taken || place(other, tried) {
				at[site] = index
				return true
			}
		}
		return false
	}
	n := 0
	for index := range sites {
		if place(index, map[string]bool{}) {
			n++
		}
	}
	return n
}
