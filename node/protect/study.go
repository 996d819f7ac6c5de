package protect

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/node/archive"
	"pelago/node/placement"
	"pelago/replication/catalog"
)

const (
	// pathResting is the peer call that asks a node what of a study rests there, GET.
	pathResting = "/protect/study/"
	// maxRestingBody bounds the answer: some 100 bytes a pack.
	maxRestingBody = 4 << 20
	// restingTime bounds the question: who does not answer by then is taken for away.
	restingTime = 3 * time.Second
)

// State is how safe something is.
type State string

// The states of a study, and of its packs, from the best.
const (
	Protected State = "protected" // it has receipts to survive what the network promises, of nodes that seem to be there
	Sealing   State = "sealing"   // some of it is not packed or spread yet
	Local     State = "local"     // the network spreads nothing: it is where it arrived
	Degraded  State = "degraded"  // it had, and some of those nodes are away or gone
	Lost      State = "lost"      // some of it is nowhere any more, as far as is known
)

// The states of a shard.
const (
	Present = "present" // it is at the node, by its receipt, or whole where it arrived
	Virtual = "virtual" // it is cut from the origin's copy
	Waiting = "waiting" // the node is to have it
	Away    = "away"    // it is at the node, which does not seem to be there
	Gone    = "lost"    // it was at a node that is lost, or was found lost there
)

// Protection is how safe a study is, as this node knows it.
type Protection struct {
	State State
	// Survives is how many sites may be lost now, of those that seem to be there, and all
	// of the study can still be read.
	Survives int
	Packs    []Pack
}

// Pack is a pack, or what of a study rests unpacked at a node.
type Pack struct {
	ID     string // hexadecimal; "staging"
	K, M   int
	State  State
	Shards []Shard
}

// Shard is where a shard is.
type Shard struct {
	Index      int
	Site, Node string
	State      string
}

// Study tells how safe a study is. It asks nobody for proofs: it goes by the receipts
// that the seals have, by what gossip says of who is there, and by the word of the
// study's origins on what they have not sealed. Commitment asks more, so a study that
// is committed is protected here, while its holders are there, and not the other way
// round. fault.NotFound for an unknown study.
func (p *Protect) Study(ctx context.Context, uid string) (*Protection, error) {
	if _, err := p.o.Catalog.Study(uid); err != nil {
		return nil, err
	}
	v := p.o.Catalog.View()
	seals, err := v.Seals(uid, "")
	if err == nil {
		var holders []catalog.Holder
		if holders, err = v.Holders(uid, ""); err == nil {
			defer v.Close()
			return p.study(ctx, uid, seals, holders)
		}
	}
	return nil, firstOf(err, v.Close())
}

func (p *Protect) study(ctx context.Context, uid string, seals []catalog.Seal, holders []catalog.Holder) (*Protection, error) {
	st := p.o.Placement.State()
	all := &Protection{State: Protected, Survives: -1, Packs: []Pack{}}
	sealed := map[string]bool{}
	rests, err := p.restsAt(ctx, uid, holders)
	if err != nil {
		return nil, err
	}
	lostAt := map[string]bool{} // packs whose whole copy is lost, by node and id
	for node, r := range rests {
		for _, one := range r.packs {
			if one.Lost {
				lostAt[node+"/"+one.ID] = true
			}
		}
	}
	for i := 0; i < len(seals); {
		n := i + 1
		for n < len(seals) && seals[n].Stripe.Pack == seals[i].Stripe.Pack {
			n++
		}
		id := hex.EncodeToString(seals[i].Stripe.Pack[:])
		sealed[id] = true
		one, survives := p.sealedPack(st, seals[i:n], lostAt[seals[i].Origin+"/"+id])
		all.add(one, survives)
		i = n
	}
	for _, node := range sortedKeys(rests) {
		for _, one := range p.unsealed(st, node, rests[node], sealed) {
			all.add(one, 0)
		}
	}
	in, _ := sealedIn(seals, 0)
	for _, h := range holders {
		if rests[h.Node].silent && in[ofSeries{h.Node, h.Series}] < h.Instances {
			m, _ := p.o.Members.Member(h.Node)
			all.add(Pack{ID: "staging", K: 1, State: worse(Sealing, Local, !st.Striped()), Shards: []Shard{{Site: m.Site, Node: h.Node, State: Away}}}, 0)
		}
	}
	all.Survives = max(all.Survives, 0)
	if len(all.Packs) == 0 {
		all.State = worse(Sealing, Local, !st.Striped())
	}
	return all, nil
}

func worse(a, b State, second bool) State {
	if second {
		return b
	}
	return a
}

func sortedKeys(m map[string]rests) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// rank orders states, the worst last.
var ranks = []State{Protected, Local, Sealing, Degraded, Lost}

// add adds a pack: the study is as safe as the least safe of its packs.
func (a *Protection) add(one Pack, survives int) {
	a.Packs = append(a.Packs, one)
	if slices.Index(ranks, one.State) > slices.Index(ranks, a.State) {
		a.State = one.State
	}
	if a.Survives < 0 || survives < a.Survives {
		a.Survives = survives
	}
}

// sealedPack judges the stripes of a pack by the best of them.
func (p *Protect) sealedPack(st *placement.State, seals []catalog.Seal, copyLost bool) (best Pack, survives int) {
	survives = -1
	for i := range seals {
		one, s := p.stripe(st, &seals[i].SealFact, copyLost)
		if best.ID == "" || slices.Index(ranks, one.State) < slices.Index(ranks, best.State) {
			best = one
		}
		survives = max(survives, s)
	}
	return best, max(survives, 0)
}

// stripe judges a stripe by its receipts and by who seems to be there; survives is
// below 0 if it cannot be read now.
func (p *Protect) stripe(st *placement.State, f *catalog.SealFact, copyLost bool) (one Pack, survives int) {
	one = Pack{ID: hex.EncodeToString(f.Stripe.Pack[:]), K: f.Code.K, M: f.Code.M}
	var had, now []proof // what has receipts, and of that what seems to be there
	left := 0            // shards that are not known to be gone
	for i := range f.Code.N() {
		s := Shard{Index: i, State: Waiting}
		s.Node = nodeOf(st, f, i)
		m, known := p.o.Members.Member(s.Node)
		s.Site = m.Site
		counts := known && p.o.Members.Belongs(s.Node) && !st.Lost(s.Node)
		if f.Receipts&(1<<i) != 0 {
			at := proof{index: i, node: s.Node, site: s.Site}
			had = append(had, at)
			switch {
			case !counts || i == f.Virtual && copyLost:
				s.State = Gone
			case s.Node != p.o.Self && !p.o.Alive(s.Node):
				s.State = Away
				left++
			default:
				now = append(now, at)
				left++
				if s.State = Present; i == f.Virtual {
					s.State = Virtual
				}
			}
		}
		one.Shards = append(one.Shards, s)
	}
	t := max(st.Survives, 0)
	switch there := apart(now); {
	case there >= f.Code.K+t:
		one.State = Protected
	case apart(had) >= f.Code.K+t || len(had) > len(now):
		one.State = Degraded
	default:
		one.State = Sealing
	}
	origin := !copyLost && p.o.Members.Belongs(f.Origin) && !st.Lost(f.Origin)
	if left < f.Code.K && !origin {
		one.State = Lost
	}
	return one, apart(now) - f.Code.K
}

// nodeOf is the node that has shard i, or is to have it.
func nodeOf(st *placement.State, f *catalog.SealFact, i int) string {
	for _, e := range f.Elsewhere {
		if e.Shard == i {
			return e.Node
		}
	}
	if i == f.Virtual {
		return f.Origin
	}
	owner, _ := st.Owner(f.Stripe, i)
	return owner.ID
}

// rests is what of a study rests at a node.
type rests struct {
	packs  []archive.PackInfo
	silent bool // it did not say
}

// restsAt asks those who hold a study what they have of it.
func (p *Protect) restsAt(ctx context.Context, uid string, holders []catalog.Holder) (map[string]rests, error) {
	ctx, cancel := context.WithTimeout(ctx, restingTime)
	defer cancel()
	all := map[string]rests{}
	var mu sync.Mutex // guards all
	var each sync.WaitGroup
	own, err := p.o.Archive.Packs(ctx, uid)
	if err != nil {
		return nil, err
	}
	if len(own) > 0 {
		all[p.o.Self] = rests{packs: own}
	}
	asked := map[string]bool{p.o.Self: true}
	for _, h := range holders {
		if asked[h.Node] || h.Instances == 0 {
			continue
		}
		asked[h.Node] = true
		each.Go(func() {
			packs, err := p.askResting(ctx, h.Node, uid)
			mu.Lock()
			defer mu.Unlock()
			all[h.Node] = rests{packs: packs, silent: err != nil}
		})
	}
	each.Wait()
	return all, nil
}

// unsealed are packs of a node that have no seal, and what it has not packed.
func (p *Protect) unsealed(st *placement.State, node string, r rests, sealed map[string]bool) []Pack {
	m, _ := p.o.Members.Member(node)
	whole := func(id, state string, of State) Pack {
		return Pack{ID: id, K: 1, State: of, Shards: []Shard{{Site: m.Site, Node: node, State: state}}}
	}
	var all []Pack
	for _, one := range r.packs {
		switch {
		case sealed[one.ID]:
		case one.Lost:
			all = append(all, whole(one.ID, Gone, Lost))
		default:
			all = append(all, whole(one.ID, Present, worse(Sealing, Local, !st.Striped())))
		}
	}
	return all
}

// wireResting is what a node says of a study, as it travels.
type wireResting struct {
	Version int            `json:"version"`
	Packs   []wirePackInfo `json:"packs"`
}

type wirePackInfo struct {
	ID   string `json:"id"`
	Lost bool   `json:"lost,omitempty"`
}

// tellResting answers askResting.
func (p *Protect) tellResting(w http.ResponseWriter, r *http.Request) {
	packs, err := p.o.Archive.Packs(r.Context(), r.PathValue("uid"))
	if err != nil {
		call.Refuse(w, err)
		return
	}
	a := wireResting{Version: wireVersion, Packs: []wirePackInfo{}}
	for _, one := range packs {
		a.Packs = append(a.Packs, wirePackInfo{one.ID, one.Lost})
	}
	b, err := json.Marshal(a)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // an asker that is gone asks again
}

func (p *Protect) askResting(ctx context.Context, node, uid string) ([]archive.PackInfo, error) {
	response, err := p.o.Peers.Do(ctx, node, http.MethodGet, pathResting+url.PathEscape(uid), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxRestingBody)
	if err != nil {
		return nil, err
	}
	var a wireResting
	if err := json.Unmarshal(b, &a); err != nil || a.Version != wireVersion {
		return nil, fault.New(fault.Invalid, "protect: what node %s says of a study does not parse", node)
	}
	packs := make([]archive.PackInfo, len(a.Packs))
	for i, one := range a.Packs {
		packs[i] = archive.PackInfo{ID: one.ID, Lost: one.Lost}
	}
	return packs, nil
}
