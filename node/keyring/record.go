package keyring

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/replication/catalog"
)

// The kinds of records in the catalogue's registry.
const (
	kindMember   = catalog.KindMember
	kindRevoked  = catalog.KindRevoked
	kindEpoch    = "epoch"    // by number: what tells its key
	kindEnvelope = "envelope" // by number and node id: the epoch's key, sealed to the node
	// kindNewest has one record. It changes with each epoch that is added, so that
	// of two decisions that add one, one is taken.
	kindNewest = "newest"
	nameNewest = "epoch"
)

const recordVersion = 1

// epoch is the record of an epoch.
type epoch struct {
	Version int    `json:"version"`
	Check   string `json:"check"` // identity.CheckOf, hexadecimal
	// Revoked is how many nodes had been removed when the epoch was made: none of
	// them ever held it. Those removed since may.
	Revoked int `json:"revoked"`
}

// is reports whether a key is the epoch's.
func (e epoch) is(number uint32, key [32]byte) bool { return e.Check == checkOf(number, key) }

func checkOf(number uint32, key [32]byte) string {
	check := identity.CheckOf(number, key)
	return hex.EncodeToString(check[:])
}

// numberText is a number in the names of records: names are then in its order.
func numberText(number uint32) string { return fmt.Sprintf("%010d", number) }

func parseNumber(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 0 || numberText(uint32(n)) != text {
		return 0, fault.New(fault.Corrupt, "keyring: %q is no epoch's number", text)
	}
	return uint32(n), nil
}

// envelope names the key of an epoch, sealed to a node.
type envelope struct {
	number uint32
	node   string
}

func (e envelope) name() string { return numberText(e.number) + "/" + e.node }

func parseEnvelope(name string) (envelope, error) {
	text, node, ok := strings.Cut(name, "/")
	number, err := parseNumber(text)
	if err == nil && (!ok || node == "") {
		err = fault.New(fault.Corrupt, "keyring: %q is no envelope's name", name)
	}
	return envelope{number, node}, err
}

func (e epoch) encode() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // a plain struct of ours
	}
	return b
}

func parseEpoch(b []byte) (epoch, error) {
	var e epoch
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fault.New(fault.Corrupt, "keyring: an epoch's record: %w", err)
	}
	if e.Version > recordVersion {
		return e, fault.New(fault.Unsupported, "keyring: an epoch's record of version %d, newer than %d", e.Version, recordVersion)
	}
	return e, nil
}
