package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
	"pelago/node/admin"
	"pelago/node/archive"
	"pelago/node/config"
	"pelago/shard"
	"pelago/shard/bulk/bulktest"
	"pelago/shard/held"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// foreign makes a shard of a stripe of another node, as it travels.
func foreign(t *testing.T, seed byte, index int) (held.Claim, []byte) {
	t.Helper()
	const plaintext = 600_000
	code := shard.Code{K: 2, M: 2}
	ciphertext := bytes.Repeat([]byte{seed, 1, 2, 3}, int(seal.Size(plaintext))/4+1)[:seal.Size(plaintext)]
	head := stripe.Head{Stripe: shard.Stripe{Pack: [16]byte{seed}, Generation: 1}, Code: code, Size: int64(len(ciphertext)),
		Plaintext: plaintext, Manifest: plaintext - 1000, Origin: strings.Repeat("o", 32)}
	var out bytes.Buffer
	to := make([]io.Writer, code.N())
	to[index] = &out
	full, err := stripe.NewCoder().Encode(t.Context(), bytes.NewReader(ciphertext), head, to)
	if err != nil {
		t.Fatal(err)
	}
	name := held.Name{Stripe: full.Stripe, Index: index}
	return held.Claim{Entry: held.Entry{Name: name, Root: full.Root()}, Bytes: int64(out.Len())}, out.Bytes()
}

// landed lands a foreign shard at a node.
func landed(t *testing.T, n *node, seed byte, index int) held.Name {
	t.Helper()
	claim, b := foreign(t, seed, index)
	until(t, "its pledge", func() bool { return n.placement.Pledged() > 0 })
	l, err := n.shards.held.Land(t.Context(), []held.Claim{claim}, bytes.NewReader(b))
	if err != nil || !l.Outcomes[0].Here() || l.Receipt.Verify(n.self.Public()) != nil {
		t.Fatalf("%+v, %v", l, err)
	}
	return claim.Name
}

func TestHeldShardsAreBackedUpVerifiedAndCounted(t *testing.T) {
	n := started(t, nil)
	names := []held.Name{landed(t, n, 1, 0), landed(t, n, 2, 3)}
	var s admin.Status
	r := pelago(t, nil, "status", "--json", "--data", n.config.Data)
	if err := json.Unmarshal([]byte(r.stdout), &s); err != nil || s.HeldBytes < 600_000 || s.BulkBytes < s.HeldBytes || s.Sites[0].Nodes[0].UsedBytes < s.HeldBytes {
		t.Errorf("status: %+v, %v", s, err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	if r := pelago(t, nil, "backup", backup, "--data", n.config.Data); r.code != 0 {
		t.Fatalf("backup: %+v", r)
	}
	n.end(t)

	data := filepath.Join(t.TempDir(), "restored")
	if r := pelago(t, nil, "restore", backup, "--data", data); r.code != 0 {
		t.Fatalf("restore: %+v", r)
	}
	n = started(t, func(c *config.Config) { c.Data = data })
	for _, name := range names {
		sh, err := n.shards.source.Shard(name)
		if err != nil {
			t.Fatalf("shard %v after the restore: %v", name, err)
		}
		if _, _, err := sh.Range(0, 2); err != nil {
			t.Error(err)
		}
	}
	var report archive.Report
	r = pelago(t, nil, "verify", "--json", "--data", data)
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 0 || report.HeldBytes < 600_000 || len(report.Findings) != 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}
	n.end(t)

	// A byte rots, and verify says so: alone at first, and then through the node.
	tables, err := filepath.Glob(filepath.Join(data, "bulk", "tables", "*.sst"))
	if err != nil || len(tables) != 2 {
		t.Fatalf("tables %v, %v", tables, err)
	}
	bulktest.Rot(t, vfs.Default, tables[0], 150_000)
	if err := os.Remove(tables[1]); err != nil {
		t.Fatal(err)
	}
	for _, alone := range []bool{true, false} {
		if !alone {
			n = started(t, func(c *config.Config) { c.Data = data })
		}
		r = pelago(t, nil, "verify", "--json", "--data", data)
		report = archive.Report{}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code == 0 || len(report.Findings) != 2 {
			t.Errorf("verify, alone %v: %+v, %v", alone, r, err)
		}
		for _, name := range names {
			if !slices.ContainsFunc(report.Findings, func(f archive.Finding) bool {
				return f.Kind == "shard" && strings.Contains(f.Object, name.String())
			}) {
				t.Errorf("findings %+v without %v", report.Findings, name)
			}
		}
	}
	for _, name := range names {
		if _, err := n.shards.source.Shard(name); !fault.Is(err, fault.Corrupt) {
			t.Errorf("shard %v: %v", name, err)
		}
	}
	// Another one lands, and all is well.
	landed(t, n, 1, 0)
	landed(t, n, 2, 3)
	if r := pelago(t, nil, "verify", "--data", data); r.code != 0 {
		t.Errorf("verify of what came anew: %+v", r)
	}
	n.end(t)
}

func TestAWitnessHoldsNoShards(t *testing.T) {
	n := started(t, func(c *config.Config) { c.Peer.Witness = true })
	defer n.end(t)
	if n.shards.held != nil || n.shards.source != nil || n.shards.client == nil || len(n.shards.tasks()) != 0 {
		t.Fatalf("%+v", n.shards)
	}
	answer := httptest.NewRecorder()
	n.network.peers.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/held/shards", http.NoBody))
	if answer.Code == http.StatusOK || answer.Code == http.StatusNotFound || !strings.Contains(answer.Body.String(), "witness") {
		t.Errorf("%d %q", answer.Code, answer.Body)
	}
	if r := pelago(t, nil, "verify", "--data", n.config.Data); r.code != 0 {
		t.Errorf("verify: %+v", r)
	}
}
