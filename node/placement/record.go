package placement

import (
	"encoding/json"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/layout"
	"pelago/shard"
)

// The kinds of records in the catalogue's registry, beside layout.Kind. They are in
// docs/formats/layout.md.
const (
	kindPledge = "pledge" // by node id, written by the node itself
	kindCode   = "code"   // one record, nameCode
	kindLost   = "lost"   // by node id, while it is
	kindPlaced = "placed" // by node id, written by the node itself
	nameCode   = "network"
)

const recordVersion = 1

// maxText bounds what a record tells of who wrote it.
const maxText = 256

// unknown is who wrote a record that does not parse: nobody takes it for the network.
const unknown = "unknown"

// pledge is what a node will hold of shards.
type pledge struct {
	Version int   `json:"version"`
	Bytes   int64 `json:"bytes"` // 0: it holds none
}

// code is how new stripes are made, and so what the network survives.
type code struct {
	Version  int    `json:"version"`
	K        int    `json:"k"`
	M        int    `json:"m"`
	Survives int    `json:"survives"`
	Sites    int    `json:"sites"`        // that it was chosen for
	By       string `json:"by,omitempty"` // the operator who set it; "": by rule, and may rise by rule
}

func (c code) code() shard.Code { return shard.Code{K: c.K, M: c.M} }

// loss says that what a node held is not to be counted on.
type loss struct {
	Version int       `json:"version"`
	By      string    `json:"by,omitempty"` // the operator who declared it; "": the network did, by its absence
	Since   time.Time `json:"since"`        // by the clock of the node that was asked; for people

	raw []byte // as it is in the registry
}

// placed says up to which layout a node has all that its rows give it.
type placed struct {
	Version int    `json:"version"`
	Layout  uint64 `json:"layout"`
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of ours
	}
	return b
}

// parse reads a record: fault.Unsupported for one of a newer version, fault.Corrupt
// for what is none.
func parse(b []byte, into any, version *int) error {
	if err := json.Unmarshal(b, into); err != nil {
		return fault.New(fault.Corrupt, "placement: a record: %w", err)
	}
	switch {
	case *version > recordVersion:
		return fault.New(fault.Unsupported, "placement: a record of version %d, newer than %d", *version, recordVersion)
	case *version < 1:
		return fault.New(fault.Corrupt, "placement: a record without a version")
	}
	return nil
}

func parsePledge(b []byte) (pledge, error) {
	var p pledge
	err := parse(b, &p, &p.Version)
	if err == nil && (p.Bytes < 0 || p.Bytes > layout.MaxPledge) {
		err = fault.New(fault.Corrupt, "placement: a pledge of %d bytes", p.Bytes)
	}
	return p, err
}

func parseCode(b []byte) (code, error) {
	var c code
	err := parse(b, &c, &c.Version)
	if err != nil {
		return c, err
	}
	if c.code().Check() != nil || c.Survives < 0 || c.Survives > c.M || c.Sites < 1 || len(c.By) > maxText {
		return c, fault.New(fault.Corrupt, "placement: a code of %d+%d that survives %d of %d sites", c.K, c.M, c.Survives, c.Sites)
	}
	return c, nil
}

// parseLoss reads a loss, which is one whatever the record holds.
func parseLoss(b []byte) (loss, error) {
	var l loss
	if err := parse(b, &l, &l.Version); err != nil {
		return loss{By: unknown, raw: b}, err
	}
	l.raw = b
	return l, nil
}

func parsePlaced(b []byte) (placed, error) {
	var p placed
	err := parse(b, &p, &p.Version)
	return p, err
}
