package group

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/pause"
)

const (
	// compareEvery is how often a node compares its state's hash with others', give
	// or take a fifth, and compareWith with how many as long as they agree.
	compareEvery = 10 * time.Second
	compareWith  = 2
	// maxCompared is how many indexes one comparison names: nodes apply in steps
	// of their own, and not every index ends one.
	maxCompared = 64
	maxHashes   = 16 << 10 // bytes of an answer
)

// hashes are hashes of the state by index: in JSON, hexadecimal by decimal.
type hashes map[uint64]string

// serveHash answers with the hashes that are known of those asked for.
func (g *Group) serveHash(w http.ResponseWriter, r *http.Request) {
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	if err := g.Fenced(); err != nil {
		call.Refuse(w, fault.New(fault.Unavailable, "%w", err))
		return
	}
	asked := strings.Split(r.URL.Query().Get("index"), ",")
	if len(asked) > maxCompared {
		call.Refuse(w, fault.New(fault.Invalid, "group: %d indexes", len(asked)))
		return
	}
	known := hashes{}
	for _, text := range asked {
		index, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			call.Refuse(w, fault.New(fault.Invalid, "group: %q is no index", text))
			return
		}
		if hash, ok := g.machine.sample(index); ok {
			known[index] = hex.EncodeToString(hash[:])
		}
	}
	writeAnswer(w, known)
}

// hashesOf asks a node for its hashes at indexes.
func (g *Group) hashesOf(ctx context.Context, node string, generation uint64, indexes []uint64) (hashes, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Answer)
	defer cancel()
	var texts []string
	for _, i := range indexes {
		texts = append(texts, strconv.FormatUint(i, 10))
	}
	query := url.Values{"generation": {strconv.FormatUint(generation, 10)}, "index": {strings.Join(texts, ",")}}
	response, err := g.o.Peers.Do(ctx, node, http.MethodGet, "/raft/hash?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxHashes)
	if err != nil {
		return nil, err
	}
	var all hashes
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fault.New(fault.Protocol, "group: a peer's hashes: %w", err)
	}
	return all, nil
}

// compare compares this node's state with others' until ctx ends, and fences it
// when more of them have another one than have the same.
func (g *Group) compare(ctx context.Context) {
	for pause.For(ctx, compareEvery*4/5+rand.N(compareEvery*2/5)) {
		if g.Fenced() != nil {
			continue
		}
		others := g.others()
		rand.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
		v := g.vote(ctx, others, compareWith)
		if v.against == 0 {
			continue
		}
		v = g.vote(ctx, others, len(others))
		g.log.Error("catalogue differs from that of other nodes", "index", v.index, "same", v.with, "other", v.against)
		if v.lost() {
			g.raise(v.index, false)
		}
	}
}

// verdict counts the nodes whose state, at an index that both know, is the same
// as here, and those where it is not.
type verdict struct {
	with, against int
	index         uint64 // the last at which one differs
	leader        bool   // the leader is among those against
}

// lost reports whether this node is the one that is wrong, as far as a count can
// tell: it and those with it are fewer, or as many without the leader.
func (v verdict) lost() bool {
	return v.against > v.with+1 || v.against == v.with+1 && v.leader
}

// vote asks others for their hashes, until enough were to be compared.
func (g *Group) vote(ctx context.Context, others []string, enough int) (v verdict) {
	generation, _ := g.node.Generation()
	mine := map[uint64][32]byte{}
	indexes := g.machine.newest(maxCompared)
	for _, i := range indexes {
		if hash, ok := g.machine.sample(i); ok {
			mine[i] = hash
		}
	}
	leader := g.Leader()
	for _, node := range others {
		if v.with+v.against >= enough || ctx.Err() != nil {
			return v
		}
		theirs, err := g.hashesOf(ctx, node, generation, indexes)
		if err != nil {
			continue
		}
		same, differs := false, uint64(0)
		for i, hash := range theirs {
			if ours, ok := mine[i]; ok && hash == hex.EncodeToString(ours[:]) {
				same = true
			} else if ok {
				differs = max(differs, i)
			}
		}
		switch {
		case differs > 0:
			v.against++
			v.index = max(v.index, differs)
			v.leader = v.leader || node == leader
		case same:
			v.with++
		}
	}
	return v
}

// others returns the members of the network but this node.
func (g *Group) others() []string {
	var all []string
	for _, m := range g.node.Members() {
		if m.ID != g.o.ID {
			all = append(all, m.ID)
		}
	}
	return all
}
