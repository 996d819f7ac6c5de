package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pelago/chaos/proc"
	"pelago/dimse"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// smallDisk mounts a tmpfs of some MiB and returns its folder.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	dimsetest.Need(t, os.Geteuid() == 0, "mounting a small file system needs root")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
		dimsetest.Need(t, false, fmt.Sprintf("mount: %v", err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// Storing on a full disk is refused with A700 and 507; everything else goes on,
// and storing too as soon as there is room.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 320)
	filler := filepath.Join(disk, "filler")
	fill(t, filler, 64<<20)
	n := start(t, func(o *proc.Options) {
		o.Data = filepath.Join(disk, "data")
		o.Config = "[store]\nballast = '128MiB'\ncache = '8MiB'\nquiet = '1h'\ngather = '1h'\n"
	})
	var stored []instance
	number := 0
	next := func() instance { number++; return made(dimsetest.CT(61, number)) }
	client, err := scu.Dial(t.Context(), n.target("E2E"), scu.Proposal{Contexts: scu.StorePlan([]scu.Kind{next().kind()})[0]})
	if err != nil {
		t.Fatal(err)
	}
	// untilFull stores until it is refused; the refusal costs nothing but
	// that instance.
	untilFull := func() {
		t.Helper()
		for range 1000 {
			in := next()
			_, err := client.Send(t.Context(), in.outgoing(), scu.Originator{})
			if err == nil {
				stored = append(stored, in)
				continue
			}
			var status *dimse.StatusError
			if !errors.As(err, &status) || status.Status != dimse.OutOfResources {
				t.Fatalf("after %d instances: %v, want A700", len(stored), err)
			}
			return
		}
		t.Fatal("the disk never became full")
	}
	untilFull()
	if len(stored) < 20 {
		t.Errorf("full after %d instances", len(stored))
	}
	if err := post(t.Context(), n.HTTP(), n.Token(), next()); !isStatus(err, http.StatusInsufficientStorage) {
		t.Errorf("STOW-RS on a full disk: %v, want 507", err)
	}
	everythingElse := func(where string) {
		t.Helper()
		n.healthy()
		n.cget(stored).same(t, "C-GET "+where, stored)
		n.wado(stored).same(t, "WADO-RS "+where, stored)
		n.counts(len(stored))
	}
	everythingElse("on a full disk")
	n.verifyClean()

	// Room again: the same association stores on.
	free(t, filler)
	in := next()
	eventually(t, soon, "storing works again", func() bool {
		_, err := client.Send(t.Context(), in.outgoing(), scu.Originator{})
		return err == nil
	})
	stored = append(stored, in)
	if err := post(t.Context(), n.HTTP(), n.Token(), next()); err != nil {
		t.Errorf("STOW-RS after room was made: %v", err)
	}
	stored = append(stored, made(dimsetest.CT(61, number)))
	everythingElse("after room was made")

	// Full again, and started there, after a clean end and after none.
	untilFull()
	if err := client.Release(t.Context()); err != nil {
		t.Error(err)
	}
	n.stop()
	n.restart()
	everythingElse("started on a full disk")
	n.kill()
	n.restart()
	everythingElse("started on a full disk after SIGKILL")
	n.verifyClean()
}

// isStatus reports whether an error is an HTTP status.
func isStatus(err error, code int) bool {
	var status *httpStatus
	return errors.As(err, &status) && status.code == code
}

// fill writes a file of some bytes that really take room.
func fill(t *testing.T, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	err = syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func free(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}

// A disk that another program fills to the last byte, the ballast too, while the
// node stores and packs: it refuses, or it ends because its stores cannot be
// written. In neither case is anything acknowledged lost, and with room again it
// starts and goes on.
func TestDiskFilledByAnother(t *testing.T) {
	disk := smallDisk(t, 320)
	n := start(t, func(o *proc.Options) {
		o.Data = filepath.Join(disk, "data")
		o.Config = "[store]\nballast = '128MiB'\ncache = '8MiB'\nquiet = '50ms'\ngather = '100ms'\ntable_size = '1MiB'\n"
	})
	all := &ledger{sent: map[string]instance{}, acknowledged: map[string]bool{}}
	s := &sender{n: n, ledger: all, seed: 6201}
	done := make(chan struct{})
	go func() { defer close(done); s.run(t.Context()) }()
	eventually(t, soon, "some instances are acknowledged", func() bool {
		all.mu.Lock()
		defer all.mu.Unlock()
		return len(all.acknowledged) > 20
	})
	filler := filepath.Join(disk, "filler")
	fillAll(t, filler)
	<-done // refused, or the node ended
	// Changes that need no room in staging meet the stores.
	for i := range 200 {
		answer, err := n.try(http.MethodPut, fmt.Sprint("/api/aes/FILL", i), strings.NewReader(fmt.Sprintf(`{"title":"FILL%d","hosts":["127.0.0.1"]}`, i)), http.Header{"Content-Type": {"application/json"}})
		if err != nil {
			break // it has ended
		}
		readAll(t, answer)
		fillAll(t, filler)
	}
	if answer, err := n.try(http.MethodPost, "/api/pack", nil, nil); err == nil {
		readAll(t, answer) // it may fail for want of room
	}
	select {
	case <-n.Done():
		if !strings.Contains(n.Log(), "no space left") {
			t.Error("the node ended without saying why")
		}
	case <-time.After(15 * time.Second): // it had room for all of that
		n.healthy()
		n.kill()
	}
	free(t, filler)
	n.restart()
	s.again()
	all.check(n, []string{dimsetest.CT(6201, 0).StudyInstanceUID})
	n.pack()
	all.check(n, []string{dimsetest.CT(6201, 0).StudyInstanceUID})
	n.verifyClean()
}

// fillAll takes all room that is left.
func fillAll(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 64<<10)
	for len(piece) > 0 {
		if _, err := f.Write(piece); err != nil {
			piece = piece[:len(piece)/2]
		}
	}
	if err := f.Close(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
