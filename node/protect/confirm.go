package protect

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"net/http"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/replication/catalog"
	"pelago/shard"
)

const (
	// pathConfirm is the peer call that asks what a member has of seals, POST.
	pathConfirm = "/protect/seals"
	// maxConfirm is how many seals are asked about at once, maxConfirmBody bounds the
	// body of a question and of its answer.
	maxConfirm     = 256
	maxConfirmBody = 128 << 10

	wireVersion = 1
)

// claim is what a member is asked to confirm: that it knows this seal, or a later word
// of the same stripe, and can open what it seals.
type claim struct {
	Stripe   shard.Stripe
	Root     [32]byte
	Revision uint64
	Key      [16]byte
}

func claimOf(seal *catalog.SealFact) claim {
	return claim{seal.Stripe, seal.Root, seal.Revision, seal.Key}
}

// wireClaim is a claim as it travels.
type wireClaim struct {
	Pack       string `json:"pack"`
	Generation uint32 `json:"generation"`
	Root       string `json:"root"`
	Revision   uint64 `json:"revision"`
	Key        string `json:"key"`
}

type question struct {
	Version int         `json:"version"`
	Seals   []wireClaim `json:"seals"`
}

// Confirmed is what a member has of a seal, durably.
type Confirmed struct {
	Sealed bool `json:"sealed"` // the seal is applied
	Opens  bool `json:"opens"`  // its study key is kept, and the epoch that opens that
}

type answer struct {
	Version int         `json:"version"`
	Seals   []Confirmed `json:"seals"` // in the order of the question
}

func (c claim) wire() wireClaim {
	return wireClaim{hex.EncodeToString(c.Stripe.Pack[:]), c.Stripe.Generation, hex.EncodeToString(c.Root[:]), c.Revision, hex.EncodeToString(c.Key[:])}
}

func (w wireClaim) claim() (c claim, err error) {
	c.Stripe.Generation, c.Revision = w.Generation, w.Revision
	for _, f := range []struct {
		to   []byte
		from string
	}{{c.Stripe.Pack[:], w.Pack}, {c.Root[:], w.Root}, {c.Key[:], w.Key}} {
		if b, err := hex.DecodeString(f.from); err != nil || copy(f.to, b) != len(f.to) || len(b) != len(f.to) {
			return claim{}, fault.New(fault.Invalid, "protect: a seal that does not parse")
		}
	}
	return c, nil
}

// confirmed says what this node has of seals. What is applied is durable: its entry
// was synced to the log before (raftlog.Store.StoreLogs), and the log is not cut
// before the catalogue is synced; a copied catalogue is durable when it is put in
// place. Keys are durable before the ring knows them (keys.Ring.Keep), epochs before
// they are held (identity.Node.Epochs); that the key opens is tried.
func (p *Protect) confirmed(claims []claim) ([]Confirmed, error) {
	if err := p.o.Fenced(); err != nil {
		return nil, fault.New(fault.Unavailable, "protect: this node's catalogue is not to be relied on: %v", err)
	}
	v := p.o.Catalog.View()
	defer v.Close()
	all := make([]Confirmed, len(claims))
	for i, c := range claims {
		seal, known, err := v.Stripe(c.Stripe)
		if err != nil {
			return nil, err
		}
		all[i].Sealed = known && seal.Root == c.Root && seal.Key == c.Key && seal.Revision >= c.Revision
		_, err = p.o.Keys.Key(c.Key)
		all[i].Opens = err == nil
	}
	return all, nil
}

// Handler answers other members' calls under /protect/.
func (p *Protect) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathConfirm, func(w http.ResponseWriter, r *http.Request) {
		b, err := p.answer(r)
		if err != nil {
			call.Refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(b) // an asker that is gone asks again
	})
	mux.HandleFunc("GET "+pathResting+"{uid}", p.tellResting)
	return mux
}

func (p *Protect) answer(r *http.Request) ([]byte, error) {
	b, err := call.Read(r.Body, maxConfirmBody)
	if err != nil {
		return nil, err
	}
	var q question
	if err := json.Unmarshal(b, &q); err != nil || q.Version != wireVersion || len(q.Seals) > maxConfirm {
		return nil, fault.New(fault.Invalid, "protect: a question about seals that does not parse")
	}
	claims := make([]claim, len(q.Seals))
	for i, w := range q.Seals {
		if claims[i], err = w.claim(); err != nil {
			return nil, err
		}
	}
	all, err := p.confirmed(claims)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer{wireVersion, all})
}

// confirm asks a member, or this node, about at most maxConfirm seals.
func (p *Protect) confirm(ctx context.Context, node string, claims []claim) ([]Confirmed, error) {
	if node == p.o.Self {
		return p.confirmed(claims)
	}
	q := question{Version: wireVersion, Seals: make([]wireClaim, len(claims))}
	for i, c := range claims {
		q.Seals[i] = c.wire()
	}
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	response, err := p.o.Peers.Do(ctx, node, http.MethodPost, pathConfirm, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if b, err = call.Read(response.Body, maxConfirmBody); err != nil {
		return nil, err
	}
	var a answer
	if err := json.Unmarshal(b, &a); err != nil || a.Version != wireVersion || len(a.Seals) != len(claims) {
		return nil, fault.New(fault.Invalid, "protect: what node %s says of seals does not parse", node)
	}
	return a.Seals, nil
}
