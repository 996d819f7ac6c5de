package reach

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/ae"
	"pelago/node/web"
)

// hold keeps reads of packs and of staged instances from crossing between sites.
// What arrives meanwhile came with a manifest. The test fails where it waits.
func (n *network) hold() (release func()) {
	held := make(chan struct{})
	n.mu.Lock()
	n.held = held
	n.mu.Unlock()
	return sync.OnceFunc(func() {
		n.mu.Lock()
		n.held = nil
		n.mu.Unlock()
		close(held)
	})
}

// await returns once reads of packs may cross.
func (n *network) await(ctx context.Context) {
	n.mu.Lock()
	held := n.held
	n.mu.Unlock()
	if held == nil {
		return
	}
	select {
	case <-held:
	case <-ctx.Done():
	case <-time.After(2 * time.Minute):
		n.t.Error("what was asked for did not come with the manifest")
	}
}

// watched is an answer that tells when bytes of an image are in it.
type watched struct {
	*httptest.ResponseRecorder
	first func()
}

func (w watched) Write(b []byte) (int, error) {
	n, err := w.ResponseRecorder.Write(b)
	if w.Body.Len() > 10_000 {
		w.first()
	}
	return n, err
}

// faces are a site's faces, as in cmd/pelago.
type faces struct {
	web    *web.Handler
	dimse  *dimsetest.Listener
	viewer *viewer
}

// viewer is an AE that takes what it is sent.
type viewer struct {
	first func()

	mu  sync.Mutex
	got map[string][]byte
}

// Store implements [scp.Storer].
func (v *viewer) Store(_ context.Context, r *scp.StoreRequest) error {
	return v.take(r.Instance, r.Data)
}

func (v *viewer) take(sop string, data io.Reader) error {
	b, err := io.ReadAll(data)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.got[sop] = b
	v.first()
	return err
}

func (s *site) faces() *faces {
	t := s.net.t
	t.Helper()
	f := &faces{viewer: &viewer{first: func() {}, got: map[string][]byte{}}}
	var err error
	if f.web, err = web.New(s.reader, s.archive, nil, web.Options{}); err != nil {
		t.Fatal(err)
	}
	registry := ae.NewRegistry("site "+s.node, s.archive.Catalog(), s.solo)
	for _, one := range []ae.AE{
		{Title: "CLIENT", Hosts: []string{"127.0.0.1"}, Rights: ae.Rights{Retrieve: true}},
		{Title: "VIEWER", Hosts: []string{"10.0.0.1"}, Port: 104},
	} {
		if err := registry.Put(context.Background(), one); err != nil {
			t.Fatal(err)
		}
	}
	there := listen(t, &scp.Server{Admit: viewing{f.viewer}})
	face := ae.New(ae.Options{
		Title: "PELAGO", Archive: s.reader, Registry: registry, Node: s.node,
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return there.Dial(ctx) },
	})
	f.dimse = listen(t, &scp.Server{Admit: face})
	return f
}

// listen serves DIMSE in memory, to clients on this machine.
func listen(t testing.TB, server *scp.Server) *dimsetest.Listener {
	l := dimsetest.Listen()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, local{l}) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// local is a listener whose connections come from 127.0.0.1.
type local struct{ *dimsetest.Listener }

func (l local) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return addressed{conn}, nil
}

type addressed struct{ net.Conn }

func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40_000} }

// viewing gives every association the viewer.
type viewing struct{ v *viewer }

func (a viewing) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Store: a.v}, nil
}

// get asks the web face, and calls first when bytes of an image have come.
func (f *faces) get(t *testing.T, path, accept string, first func()) []byte {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/dicom-web/studies/"+path, nil)
	r.Header.Set("Accept", accept)
	w := watched{httptest.NewRecorder(), first}
	f.web.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// dial opens an association with the DIMSE face.
func (f *faces) dial(t *testing.T, p scu.Proposal) *scu.Client {
	t.Helper()
	client, err := scu.Dial(t.Context(), scu.Target{
		Addr: "pelago:104", Called: "PELAGO", Calling: "CLIENT",
		Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return f.dimse.Dial(ctx) },
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// seriesOf names a series in a retrieve.
func seriesOf(study, series string) scu.Query {
	d := dicom.NewDataset()
	d.Set(dict.QueryRetrieveLevel, dict.CS, "SERIES")
	d.Set(dict.StudyInstanceUID, dict.UI, study)
	d.Set(dict.SeriesInstanceUID, dict.UI, series)
	return scu.Query{Root: dimse.StudyRoot, Level: "SERIES", Identifier: d}
}

const (
	acceptFrames = `multipart/related; type="application/octet-stream"; transfer-syntax=*`
	acceptDICOM  = `multipart/related; type="application/dicom"; transfer-syntax=*`
)

// What is asked for of a series that was never opened here begins to leave this
// node when one answer has come: reads of packs are kept back until then.
func TestWhatIsReadFirstComesWithTheManifest(t *testing.T) {
	const count = 100
	for _, test := range []struct {
		name   string
		follow int64 // reads of packs that may follow, for the rest or ahead of a reader
		ask    func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) (got int)
	}{
		{"a frame", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			body := f.get(t, path(all[count/2])+"/frames/1", acceptFrames, first)
			if !bytes.Contains(body, pixels(all[count/2])) {
				t.Error("another frame")
			}
			return count
		}},
		{"a rendered frame", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			f.get(t, path(all[count/2])+"/rendered", "image/png", first)
			return count
		}},
		{"a thumbnail of an instance", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			f.get(t, path(all[count/2])+"/thumbnail", "image/png", first)
			return count
		}},
		{"an instance", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			body := f.get(t, path(all[count/2]), acceptDICOM, first)
			if !bytes.Contains(body, all[count/2].Dataset()) {
				t.Error("another instance")
			}
			return count
		}},
		{"pixel data", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			f.get(t, path(all[count/2])+"/bulkdata/7FE00010", "application/octet-stream; transfer-syntax=*", first)
			return count
		}},
		{"metadata", 0, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			study, series := uids(all)
			body := f.get(t, study+"/series/"+series+"/metadata", "application/dicom+json", first)
			return bytes.Count(body, []byte(`"00080018"`))
		}},
		{"a series", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			study, series := uids(all)
			return f.parts(t, study+"/series/"+series, first)
		}},
		{"C-GET of a series", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			client := f.dial(t, scu.ProposeGet(dimse.StudyRoot, []scu.Kind{{Class: dimsetest.CTImageStorage, Syntax: dict.ExplicitLittleEndian}}))
			f.viewer.first = first
			for p, err := range client.Get(t.Context(), seriesOf(uids(all)), func(_ context.Context, in *scu.Incoming) error {
				return f.viewer.take(in.Instance, in.Data)
			}) {
				if err != nil || p.Failed > 0 {
					t.Fatalf("%+v, %v", p, err)
				}
			}
			return f.viewer.has(t, client, all)
		}},
		{"C-MOVE of a series", 40, func(t *testing.T, f *faces, all []dimsetest.Instance, first func()) int {
			client := f.dial(t, scu.ProposeMove(dimse.StudyRoot))
			f.viewer.first = first
			for p, err := range client.Move(t.Context(), "VIEWER", seriesOf(uids(all))) {
				if err != nil || p.Failed > 0 {
					t.Fatalf("%+v, %v", p, err)
				}
			}
			return f.viewer.has(t, client, all)
		}},
	} {
		for _, packed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, packed %t", test.name, packed), func(t *testing.T) {
				n := newNetwork(t, "a", "b")
				all := images(1, 0, count)
				study, series := uids(all)
				a, b := n.sites["a"], n.sites["b"]
				a.store(all...)
				if packed {
					a.pack()
				}
				a.announce(study, series, "b")
				f := b.faces()
				release := n.hold()
				defer release()
				if got := test.ask(t, f, all, release); got != count {
					t.Errorf("%d instances, want %d", got, count)
				}
				release()
				b.reader.work.Wait() // the rest of the manifest
				follow := test.follow
				if !packed && follow > 0 {
					follow = count // one for each instance in staging
				}
				t.Logf("%d manifests, %d reads of packs after the first bytes", n.asked.Load(), n.ranges.Load())
				if asked, ranges := n.asked.Load(), n.ranges.Load(); asked != 1 || ranges > follow {
					t.Errorf("%d manifests and %d reads of packs, of 1 and %d", asked, ranges, follow)
				}
			})
		}
	}
}

// path names an instance below /studies/.
func path(in dimsetest.Instance) string {
	return in.StudyInstanceUID + "/series/" + in.SeriesInstanceUID + "/instances/" + in.SOPInstanceUID
}

// pixels are those of an image of one frame.
func pixels(in dimsetest.Instance) []byte {
	data := in.Dataset()
	return data[len(data)-2*in.Rows*in.Columns:]
}

// parts counts the parts of an answer, and checks that none comes twice.
func (f *faces) parts(t *testing.T, path string, first func()) int {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/dicom-web/studies/"+path, nil)
	r.Header.Set("Accept", acceptDICOM)
	w := watched{httptest.NewRecorder(), first}
	f.web.ServeHTTP(w, r)
	_, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[[32]byte]bool{}
	for parts := multipart.NewReader(w.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			return len(seen)
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		seen[hashOf(b)] = true
	}
}

// has counts the images that came as they are.
func (v *viewer) has(t *testing.T, client *scu.Client, all []dimsetest.Instance) (n int) {
	t.Helper()
	if err := client.Release(t.Context()); err != nil {
		t.Error(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, in := range all {
		if bytes.Equal(v.got[in.SOPInstanceUID], in.Dataset()) {
			n++
		}
	}
	return n
}
