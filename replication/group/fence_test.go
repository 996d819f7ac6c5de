package group

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/identity"
)

// What the fence says outlives the process, and a file that is rotten is a fence.
func TestAFenceIsReadAsItWasWritten(t *testing.T) {
	for name, want := range map[string]fenced{
		"none":                   {},
		"another state":          {stands: true, index: 1 << 40},
		"broken":                 {stands: true, broken: true, unverified: true, index: 7},
		"repaired":               {repaired: time.Unix(1_700_000_000, 0)},
		"repaired, not verified": {unverified: true, repaired: time.Unix(1_700_000_000, 0)},
	} {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		f, err := openFence(fs, "data")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.change(func(is *fenced) { *is = want }); err != nil {
			t.Fatal(err)
		}
		again, err := openFence(fs, "data")
		if err != nil || again.read() != want {
			t.Errorf("%s: %+v, %v", name, again.read(), err)
		}
	}
	for _, b := range [][]byte{nil, []byte("rot"), identity.Frame(fenceMagic, []byte{0})} {
		fs := vfs.NewMem()
		if err := fs.MkdirAll("data", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := identity.WriteFile(fs, "data", fenceFile, b); err != nil {
			t.Fatal(err)
		}
		if f, err := openFence(fs, "data"); err != nil || !f.read().stands {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}
