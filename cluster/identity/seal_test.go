package identity

import (
	"bytes"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
)

func openNew(t *testing.T) *Node {
	t.Helper()
	n, err := Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestASecretOpensForItsNodeAndPurposeOnly(t *testing.T) {
	a, b := openNew(t), openNew(t)
	sealed, err := SealTo(a.Sealing(), []byte("purpose"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Unseal([]byte("purpose"), sealed); err != nil || string(got) != "secret" || len(sealed) != len("secret")+48 {
		t.Fatalf("%q, %v, %d bytes", got, err, len(sealed))
	}
	changed := bytes.Clone(sealed)
	changed[40] ^= 1
	for name, c := range map[string]struct {
		node   *Node
		info   string
		sealed []byte
	}{
		"another node":    {b, "purpose", sealed},
		"another purpose": {a, "other", sealed},
		"a changed byte":  {a, "purpose", changed},
		"cut short":       {a, "purpose", sealed[:20]},
		"nothing":         {a, "purpose", nil},
	} {
		if _, err := c.node.Unseal([]byte(c.info), c.sealed); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASealingKeyIsBelievedOfItsNodeOnly(t *testing.T) {
	a, b := openNew(t), openNew(t)
	if err := CheckSealing(a.Public(), a.Sealing(), a.SealingProof()); err != nil {
		t.Fatal(err)
	}
	if err := CheckSealing(a.Public(), b.Sealing(), b.SealingProof()); !fault.Is(err, fault.Denied) {
		t.Errorf("another node's key: %v", err)
	}
	if err := CheckSealing(a.Public(), b.Sealing(), a.SealingProof()); !fault.Is(err, fault.Denied) {
		t.Errorf("another key under a node's proof: %v", err)
	}
	var zero [SealingBytes]byte // of low order: whatever is sealed to it, everybody opens
	if _, err := SealTo(zero, nil, []byte("secret")); !fault.Is(err, fault.Invalid) {
		t.Errorf("a point of low order: %v", err)
	}
}
