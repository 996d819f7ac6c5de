package authority

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

var ed25519Options ed25519.Options

func TestCredentialsAreTheNodesOwn(t *testing.T) {
	s, self := newNetwork(t, "north"), newNode(t)
	now := time.Now()
	c, err := NewCredentials(s.Root(), self, issue(t, s, self, "Mercy", now.Add(-10*Lifetime)))
	if err != nil {
		t.Fatalf("an expired certificate awaits its renewal: %v", err)
	}
	if err := c.Replace(issue(t, s, self, "Mercy", now)); err != nil {
		t.Fatal(err)
	}
	if c.Due().Sub(now.Add(60*24*time.Hour)).Abs() > time.Second {
		t.Errorf("due at %v", c.Due())
	}
	leaf := c.Certificate().Leaf
	for name, der := range map[string][]byte{
		"another node's":    issue(t, s, newNode(t), "Mercy", now),
		"another site's":    issue(t, s, self, "Grace", now),
		"another network's": issue(t, newNetwork(t, "north"), self, "Mercy", now),
	} {
		if err := c.Replace(der); !fault.Is(err, fault.Denied) || c.Certificate().Leaf != leaf {
			t.Errorf("%s: %v", name, err)
		}
		if name == "another site's" {
			continue
		}
		if _, err := NewCredentials(s.Root(), self, der); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACertificateIsRenewedAMonthAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, self := newNetwork(t, "north"), newNode(t)
		c, err := NewCredentials(s.Root(), self, issue(t, s, self, "Mercy", time.Now()))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		var asked []time.Duration
		var failures int
		err = c.KeepValid(t.Context(), func(context.Context) ([]byte, error) {
			asked = append(asked, time.Since(start))
			switch len(asked) {
			case 1, 2:
				return nil, fault.New(fault.Unavailable, "no voter answers")
			case 3:
				return issue(t, s, self, "Mercy", time.Now()), nil
			case 4: // a voter whose clock is a year behind
				return issue(t, s, self, "Mercy", time.Now().Add(-365*24*time.Hour)), nil
			}
			return nil, Revoked.Err()
		}, func(error) { failures++ })
		if !errors.Is(err, Revoked) || failures != 3 || len(asked) != 5 {
			t.Fatalf("%v after %d requests and %d failures", err, len(asked), failures)
		}
		day := 24 * time.Hour
		if asked[0] < 60*day-time.Second || asked[0] > 60*day || asked[1]-asked[0] < renewRetry/2 || asked[1]-asked[0] > renewRetry*3/2 ||
			asked[3]-asked[2] < 60*day-time.Second || asked[4]-asked[3] < renewRetry/2 || asked[4]-asked[3] > renewRetry*3/2 {
			t.Errorf("asked after %v", asked)
		}
	})
}

func TestPapersSurviveACrashWholeOrNotAtAll(t *testing.T) {
	old, fresh := Papers{Root: []byte("root"), Certificate: []byte("old"), Key: []byte("key")}, Papers{Root: []byte("root"), Certificate: []byte("new")}
	for at := 1; ; at++ {
		mem := vfs.NewCrashableMem()
		if err := mem.MkdirAll("keys", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.SyncDir(mem, "/"); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPapers(mem, "keys"); !fault.Is(err, fault.NotFound) {
			t.Fatalf("no papers: %v", err)
		}
		if err := old.Save(mem, "keys"); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		count := 0
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				if count++; count == at {
					crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(at), 2))})
				}
			}
			return nil
		}))
		if err := fresh.Save(fs, "keys"); err != nil {
			t.Fatal(err)
		}
		want := []Papers{old, fresh}
		if crashed == nil {
			crashed, want = mem.CrashClone(vfs.CrashCloneCfg{}), want[1:]
		}
		got, err := LoadPapers(crashed, "keys")
		if err != nil || !same(got, want[0]) && !same(got, want[len(want)-1]) {
			t.Errorf("crash at %d: %+v, %v", at, got, err)
		}
		if len(want) == 1 {
			break
		}
	}
}

func same(a, b Papers) bool {
	return reflect.DeepEqual([]string{string(a.Root), string(a.Certificate), string(a.Key)}, []string{string(b.Root), string(b.Certificate), string(b.Key)})
}

// The golden folder is a voter's: its keys, and its papers.
func TestTheExportHoldsTheRootAndTheKeyStillSealed(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "keys", papersFile))
	if err != nil {
		t.Fatal(err)
	}
	fs := vfs.NewMem()
	if err := errors.Join(fs.MkdirAll("keys", 0o700), identity.WriteFile(fs, "keys", papersFile, b)); err != nil {
		t.Fatal(err)
	}
	p, err := LoadPapers(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.Export()
	if err != nil {
		t.Fatal(err)
	}
	root, rest := pem.Decode(text)
	key, rest := pem.Decode(rest)
	if !bytes.Equal(root.Bytes, p.Root) || root.Type != "CERTIFICATE" || !bytes.Equal(key.Bytes, p.Key) || len(rest) != 0 {
		t.Errorf("it is\n%s", text)
	}
	r, err := ParseRoot(p.Root)
	if hash := r.Hash(); err != nil || key.Headers["Network"] != hex.EncodeToString(hash[:]) || len(key.Headers["Node"]) != 32 {
		t.Errorf("%v, %v", key.Headers, err)
	}
	p.Key = nil
	if text, err = p.Export(); err != nil || !bytes.Equal(text, pem.EncodeToMemory(root)) {
		t.Errorf("without the key: %v\n%s", err, text)
	}
	if _, err := (Papers{Root: p.Certificate}).Export(); !fault.Is(err, fault.Invalid) {
		t.Errorf("another certificate in the place of the root: %v", err)
	}
}

func TestGoldenPapers(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("keys", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node.key", "epochs", papersFile} {
		b, err := os.ReadFile(filepath.Join("testdata", "keys", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := identity.WriteFile(fs, "keys", name, b); err != nil {
			t.Fatal(err)
		}
	}
	self, err := identity.Open(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	p, err := LoadPapers(fs, "keys")
	if err != nil {
		t.Fatal(err)
	}
	root, err := ParseRoot(p.Root)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewCredentials(root, self, p.Certificate)
	if err != nil || c.Name() != (Name{"golden", "St. Mary's", self.ID()}) {
		t.Fatalf("%v", err)
	}
	s, err := OpenSigner(root, self, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.Verify(issue(t, s, self, "Grace", time.Now()), time.Now()); err != nil {
		t.Error(err)
	}
}
