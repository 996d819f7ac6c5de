package e2e

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// refused starts a node that must refuse to, and returns what it said.
func refused(t *testing.T, o proc.Options) string {
	t.Helper()
	if o.Binary = pelagoBinary; o.Dir == "" {
		o.Dir = t.TempDir()
	}
	n, err := proc.Start(t.Context(), o)
	var ended *proc.Ended
	if !errors.As(err, &ended) {
		t.Errorf("it started: %v", err)
		if err := n.Kill(); err != nil {
			t.Error(err)
		}
		return ""
	}
	if ended.Code == 0 || ended.Code == -1 {
		t.Errorf("it ended with code %d", ended.Code)
	}
	return ended.Log
}

func TestSecondProcessOnADataDirectoryIsRefused(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 51, Patients: 2})
	n.cstore(all)
	if said := refused(t, proc.Options{Data: n.Data()}); !strings.Contains(said, "in use") {
		t.Errorf("it said:\n%s", said)
	}
	// The first one goes on, and can still be found by its directory.
	n.healthy()
	n.cget(all).same(t, "C-GET", all)
	n.verifyClean()
}

func TestDataDirectoryFromANewerVersionIsRefusedUntouched(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 52, Patients: 2})
	n.cstore(all)
	n.stop()
	version := filepath.Join(n.Data(), "version")
	was, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(version, []byte("pelago 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := tree(t, n.Data())
	if said := refused(t, proc.Options{Data: n.Data()}); !strings.Contains(said, "newer") {
		t.Errorf("it said:\n%s", said)
	}
	if after := tree(t, n.Data()); after != before {
		t.Errorf("the directory was changed:\n%s\nwas\n%s", after, before)
	}
	if err := os.WriteFile(version, was, 0o600); err != nil {
		t.Fatal(err)
	}
	n.restart()
	n.cget(all).same(t, "C-GET", all)
}

// tree lists a folder's files with their sizes and times.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && entry.Type().IsRegular() {
			b.WriteString(strings.Join([]string{name, sprint(info.Size()), info.ModTime().String()}, " ") + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFolderOfSomethingElseIsRefusedUntouched(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := refused(t, proc.Options{Data: dir}); !strings.Contains(said, "not empty") {
		t.Errorf("it said:\n%s", said)
	}
}

// A data directory without its keys could never be read: a new identity in its
// place would only hide that.
func TestLostKeysAreRefused(t *testing.T) {
	n := start(t)
	n.cstore(world(dimsetest.World{Seed: 53, Patients: 1}))
	n.stop()
	keys := filepath.Join(n.Data(), "keys")
	if err := os.Rename(keys, keys+".away"); err != nil {
		t.Fatal(err)
	}
	if said := refused(t, proc.Options{Data: n.Data()}); !strings.Contains(said, "key") {
		t.Errorf("it said:\n%s", said)
	}
	if err := os.RemoveAll(keys); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(keys+".away", keys); err != nil {
		t.Fatal(err)
	}
	n.restart()
}

func TestOpenByAccidentIsRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"web on all interfaces":         {"--http", "0.0.0.0:0"},
		"web on IPv6's all interfaces":  {"--http", "[::]:0"},
		"web without a host":            {"--http", ":0"},
		"an unknown flag":               {"--frobnicate"},
		"a port that is none":           {"--dicom", "127.0.0.1:99999"},
		"an AE title that is too long":  {"--ae", "SEVENTEEN_LETTERS"},
		"an AE title with a backslash":  {"--ae", `A\B`},
		"an address without a port":     {"--dicom", "127.0.0.1"},
		"an address of another machine": {"--dicom", "192.0.2.1:11112"},
	} {
		t.Run(name, func(t *testing.T) {
			if said := refused(t, proc.Options{Args: args}); said == "" {
				t.Error("it said nothing")
			}
		})
	}
	t.Run("an unknown key", func(t *testing.T) {
		if said := refused(t, proc.Options{Config: "[dicom]\naet = 'X'\n"}); !strings.Contains(said, "aet") {
			t.Errorf("it said:\n%s", said)
		}
	})
	t.Run("an unknown variable", func(t *testing.T) {
		if said := refused(t, proc.Options{Env: []string{"PELAGO_DICOM_AET=X"}}); !strings.Contains(said, "PELAGO_DICOM_AET") {
			t.Errorf("it said:\n%s", said)
		}
	})
	t.Run("a port that is taken", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if said := refused(t, proc.Options{Args: []string{"--dicom", l.Addr().String()}}); !strings.Contains(said, "in use") {
			t.Errorf("it said:\n%s", said)
		}
	})
	t.Run("told so", func(t *testing.T) {
		n := start(t, func(o *proc.Options) { o.Args = []string{"--http", "0.0.0.0:0", "--insecure"} })
		n.stop()
	})
}

// A clean end does not wait for associations that do nothing, takes no half
// instance, and leaves nothing to replay.
func TestTermDoesNotWaitForIdleAssociations(t *testing.T) {
	n := start(t)
	all := world(dimsetest.World{Seed: 54, Patients: 3})
	n.cstore(all)
	var idle []*scu.Client
	for range 20 {
		c, err := scu.Dial(t.Context(), n.target("IDLE"), scu.ProposeEcho())
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	for range 20 { // connections without an association
		conn, err := net.Dial("tcp", n.DICOM())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	keepAlive, err := net.Dial("tcp", strings.TrimPrefix(n.HTTP(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer keepAlive.Close()
	n.stop() // which cuts nobody off
	for _, c := range idle {
		select {
		case <-c.Done():
		case <-time.After(soon):
			t.Fatal("an association outlives its node")
		}
		_ = c.Abort()
	}
	if _, err := os.Stat(filepath.Join(n.Data(), "node.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the announcement is still there: %v", err)
	}
	n.restart()
	if strings.Contains(n.Log(), "staging replayed") {
		t.Error("a clean end left something to replay")
	}
	n.cget(all).same(t, "C-GET", all)
	n.verifyClean()
}

// Who stores while the node is told to end may go on for a while, on both faces;
// who does not end by himself is cut off. Either is a clean end, and what was
// acknowledged meanwhile is there.
func TestTermWhileStoring(t *testing.T) {
	t.Parallel()
	for name, endless := range map[string]bool{"senders that end": false, "senders that never end": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if endless && testing.Short() {
				t.Skip("SKIPPED: -short")
			}
			n := start(t)
			all := &ledger{sent: map[string]instance{}, acknowledged: map[string]bool{}}
			sending, stop := context.WithCancel(t.Context())
			defer stop()
			var group sync.WaitGroup
			for _, s := range []*sender{{n: n, ledger: all, seed: 5501, pause: 20 * time.Millisecond}, {n: n, ledger: all, seed: 5502, stow: true, pause: 20 * time.Millisecond}} {
				group.Go(func() { s.run(sending) })
			}
			eventually(t, soon, "some instances are acknowledged", func() bool {
				all.mu.Lock()
				defer all.mu.Unlock()
				return len(all.acknowledged) > 10
			})
			if !endless {
				timer := time.AfterFunc(time.Second, stop)
				defer timer.Stop()
			}
			ctx, cancel := context.WithTimeout(context.Background(), stopTime)
			defer cancel()
			if err := n.Stop(ctx); err != nil {
				t.Error(err)
			}
			if forced := strings.Contains(n.Log(), cutOff); forced != endless {
				t.Errorf("senders were cut off: %v", forced)
			}
			stop()
			group.Wait()
			n.restart()
			all.check(n, []string{dimsetest.CT(5501, 0).StudyInstanceUID, dimsetest.CT(5502, 0).StudyInstanceUID})
			n.verifyClean()
		})
	}
}
