package protect

import "pelago/cluster/fault"

// bug is a fault that would have an instance reported safe that is not. Tests switch
// one on and must see it; 0, none, is what runs.
type bug uint8

const (
	bugJustEnough   bug = 1 + iota // k shards are enough to read it
	bugNodes                       // nodes are counted, and not sites
	bugAnyCopy                     // who can show a shard from a copy holds it
	bugCopyUnread                  // this node's copy is as it was
	bugGossip                      // who is alive by gossip has what it should
	bugAnyReceipt                  // a receipt is one, whatever stripe it is for
	bugNoManifest                  // the manifest is wherever shards are
	bugKeysFollow                  // who has the seal has its key
	bugSealHere                    // a seal that is applied here is applied
	bugOnceIsEnough                // what survived once survives
	bugOwnView                     // what this catalogue says is what the network says
	bugs
)

// spoil has what a node answered taken for more than it is, if a test wants it so.
func (a *ask) spoil(p *Protect) {
	switch p.bug {
	case bugAnyCopy:
		for i := range a.shards {
			if a.proofs[i] == nil && fault.Is(a.receipts[i], fault.NotFound) {
				a.receipts[i] = nil
			}
		}
	case bugGossip:
		if p.o.Alive(a.node) {
			for i := range a.shards {
				a.receipts[i], a.proofs[i] = nil, nil
			}
		}
	case bugKeysFollow, bugSealHere:
		seen := make([]Confirmed, len(a.seals))
		for i := range seen {
			if p.bug == bugSealHere || i < len(a.seen) && a.seen[i].Sealed {
				seen[i] = Confirmed{Sealed: true, Opens: true}
			}
		}
		a.seen = seen
	}
}
