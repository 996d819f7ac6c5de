package group

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/klauspost/compress/zstd"

	"pelago/cluster/call"
	"pelago/cluster/fault"
)

// local sends every request to one handler.
type local struct {
	handler http.Handler

	mu    sync.Mutex
	bytes int // that were asked for
}

func (l *local) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	l.handler.ServeHTTP(w, r)
	l.mu.Lock()
	defer l.mu.Unlock()
	if n, err := strconv.Atoi(r.URL.Query().Get("bytes")); err == nil {
		l.bytes += n
	}
	return w.Result(), nil
}

// offered is a node that offers a checkpoint of files.
func offered(t *testing.T, files map[string][]byte) (*local, *manifest) {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("pin", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		f, err := fs.Create("pin/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(slices.Clone(b)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	all, err := describe(t.Context(), fs, "pin")
	if err != nil {
		t.Fatal(err)
	}
	m := manifest{ID: "1", Index: 7, Files: all}
	g := &Group{o: Options{FS: fs}, copies: copies{fs: fs, pins: map[string]*pin{"1": {manifest: m, dir: "pin", made: time.Now(), used: time.Now()}}}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /raft/checkpoint/{id}/{file}", g.serveFile)
	return &local{handler: mux}, &m
}

func downloadOf(from *local, m *manifest, fs vfs.FS) *download {
	return &download{g: &Group{o: Options{Peers: call.NewClient(from), Dir: "data"}}, node: "n", manifest: m, fs: fs, dir: "data/copy"}
}

func check(t *testing.T, fs vfs.FS, whole string, files map[string][]byte) {
	t.Helper()
	names, err := fs.List(whole)
	if err != nil || len(names) != len(files) {
		t.Fatal(names, err)
	}
	for name, want := range files {
		f, err := fs.Open(fs.PathJoin(whole, name))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want)+1)
		n, _ := f.ReadAt(got, 0)
		f.Close()
		if !bytes.Equal(got[:n], want) {
			t.Errorf("%s has %d bytes of others than %d", name, n, len(want))
		}
	}
}

func someFiles() map[string][]byte {
	files := map[string][]byte{"MANIFEST-000001": []byte("m"), "marker.manifest.000001.MANIFEST-000001": {}, "twin.sst": []byte("m")}
	for i := range 5 {
		files[fmt.Sprintf("%06d.sst", i)] = bytes.Repeat([]byte{byte(i), 7}, 20_000*i+1)
	}
	return files
}

// Whatever a crash leaves of a copy, the next attempt ends it.
func TestACopyGoesOnAfterACrashAtAnyOperation(t *testing.T) {
	files := someFiles()
	from, m := offered(t, files)
	random := rand.New(rand.NewPCG(3, 4))
	disk := vfs.NewCrashableMem()
	if err := disk.MkdirAll("data", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syncDirs(disk, ""); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var clones []*vfs.MemFS
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			clones = append(clones, disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random}))
		}
		return nil
	}))
	whole, err := downloadOf(from, m, fs).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check(t, fs, whole, files)
	if len(clones) < 30 {
		t.Errorf("%d operations", len(clones))
	}
	for i, clone := range clones {
		whole, err := downloadOf(from, m, clone).run(t.Context())
		if err != nil {
			t.Fatalf("after crash %d: %v", i, err)
		}
		check(t, clone, whole, files)
	}
}

func TestACopyFetchesWhatItLacksAndNoMore(t *testing.T) {
	files := someFiles()
	from, m := offered(t, files)
	fs := vfs.NewMem()
	if _, err := downloadOf(from, m, fs).run(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := from.bytes
	// Another node has most of the same files under other names.
	files["renamed.sst"] = files["000004.sst"]
	delete(files, "000004.sst")
	files["new.sst"] = []byte("new")
	from, m = offered(t, files)
	whole, err := downloadOf(from, m, fs).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check(t, fs, whole, files)
	if from.bytes != len("new") {
		t.Errorf("%d bytes, then %d", first, from.bytes)
	}
}

func TestACopyThatIsNotWhatWasOfferedIsRefused(t *testing.T) {
	files := someFiles()
	from, m := offered(t, files)
	liar, _ := offered(t, map[string][]byte{})
	liar.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		to, err := zstd.NewWriter(w, zstd.WithWindowSize(pieceWindow))
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := to.Write(bytes.Repeat([]byte{'x'}, 1<<20)); err != nil {
			t.Error(err)
		}
		if err := to.Close(); err != nil {
			t.Error(err)
		}
	})
	fs := vfs.NewMem()
	if _, err := downloadOf(liar, m, fs).run(t.Context()); !fault.Is(err, fault.Corrupt) {
		t.Errorf("other bytes: %v", err)
	}
	short := &local{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { call.Refuse(w, fault.New(fault.NotFound, "gone")) })}
	if _, err := downloadOf(short, m, fs).run(t.Context()); !fault.Is(err, fault.NotFound) {
		t.Errorf("a checkpoint that has expired: %v", err)
	}
	whole, err := downloadOf(from, m, fs).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	check(t, fs, whole, files)
}

// What is no zstd, ends before its end or is longer than was asked for is no copy,
// and takes no more memory or disk than one.
func TestAPieceThatIsNoneIsRefused(t *testing.T) {
	files := someFiles()
	_, m := offered(t, files)
	bomb := func(bytes int) []byte {
		e, err := zstd.NewWriter(nil, zstd.WithWindowSize(pieceWindow))
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(make([]byte, bytes), nil)
	}
	for name, body := range map[string][]byte{
		"nothing": {}, "no zstd": []byte("a page of a proxy"), "the beginning": bomb(1 << 20)[:20], "a window of its own": wide(t),
		"too long": bomb(64 << 20),
	} {
		synctest.Test(t, func(t *testing.T) {
			fs := vfs.NewMem()
			liar := &local{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })}
			d := downloadOf(liar, m, fs)
			if _, err := d.run(t.Context()); !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.Corrupt) {
				t.Errorf("%s: %v", name, err)
			}
			longest := uint64(0)
			for _, f := range m.Files {
				longest += uint64(f.Size)
			}
			if left := d.there(); left > longest {
				t.Errorf("%s: %d bytes are kept of %d", name, left, longest)
			}
		})
	}
}

// wide is zstd that needs more memory than any piece does.
func wide(t *testing.T) []byte {
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	e.Reset(&b)
	for range 65 {
		if _, err := e.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOnlyPiecesOfFilesAreServed(t *testing.T) {
	from, m := offered(t, map[string][]byte{"a": []byte("0123456789")})
	for query, want := range map[string]int{
		"from=0&bytes=10": http.StatusOK, "from=9&bytes=1": http.StatusOK, "from=9&bytes=2": http.StatusBadRequest, "from=10&bytes=1": http.StatusBadRequest,
		"from=-1&bytes=1": http.StatusBadRequest, "from=0&bytes=0": http.StatusBadRequest, "from=0": http.StatusBadRequest, "": http.StatusBadRequest,
		"from=9223372036854775807&bytes=2": http.StatusBadRequest, "from=0&bytes=9223372036854775807": http.StatusBadRequest,
	} {
		w := httptest.NewRecorder()
		from.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/raft/checkpoint/"+m.ID+"/a?"+query, nil))
		if w.Code != want {
			t.Errorf("%s: %d", query, w.Code)
		}
	}
}

// ending is a catalogue whose copy is prepared as its node is stopped.
type ending struct {
	Catalogue
	stop  context.CancelFunc
	whole *manifest
}

func (e ending) Prepare(context.Context, string, string) (hash [32]byte, index uint64, err error) {
	e.stop()
	_, err = hex.Decode(hash[:], []byte(e.whole.Hash))
	return hash, e.whole.Index, err
}

// A copy that was not put in place is not taken for one that was.
func TestACopyThatIsStoppedIsNotDone(t *testing.T) {
	files := someFiles()
	from, m := offered(t, files)
	m.Hash = strings.Repeat("5", 64)
	mux := http.NewServeMux()
	mux.Handle("GET /raft/checkpoint/", from.handler)
	mux.HandleFunc("GET /raft/checkpoint", func(w http.ResponseWriter, _ *http.Request) { writeAnswer(w, m) })
	ctx, stop := context.WithCancel(t.Context())
	fs := vfs.NewMem()
	g := &Group{log: slog.New(slog.DiscardHandler), o: Options{
		Peers: call.NewClient(&local{handler: mux}), FS: fs, Dir: "data", Catalogue: ending{stop: stop, whole: m},
	}}
	trusted := func(context.Context, string, *manifest) error { return nil }
	if err := g.copyFrom(ctx, "n", m.Generation, m.Index, trusted); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped before it was in place: %v", err)
	}
	check(t, fs, "data/copy/whole", files)
}

// small is a disk with little room.
type small struct {
	vfs.FS
	free uint64
}

func (s small) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: s.free}, nil
}

func TestACopyThatHasNoRoomIsNotBegun(t *testing.T) {
	const most = math.MaxInt64
	for _, tt := range []struct {
		free, there uint64
		sizes       []int64
		fits        bool
	}{
		{200, 0, []int64{60, 40}, true}, {200, 0, []int64{60, 41}, false}, {0, 0, []int64{0}, true}, {0, 0, []int64{1}, false},
		{110, 90, []int64{60, 40}, true}, {110, 90, []int64{60, 41}, false},
		{200, 0, []int64{most, most, 2}, false}, // which add up to little
	} {
		var m manifest
		for _, size := range tt.sizes {
			m.Files = append(m.Files, file{Size: size})
		}
		err := m.fits(small{vfs.NewMem(), tt.free}, "", tt.there)
		if tt.fits && err != nil || !tt.fits && !fault.Is(err, fault.Full) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if err := (&manifest{Files: []file{{Size: most}}}).fits(vfs.NewMem(), "", 0); err != nil {
		t.Errorf("where nobody knows: %v", err)
	}
}
