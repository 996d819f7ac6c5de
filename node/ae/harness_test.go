package ae

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"pelago/cluster/fault"
	"pelago/dimse/assoc"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/node/archive"
	"pelago/query"
	"pelago/replication/catalog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// records is a catalogue of registry records, and what decides on them.
type records struct {
	mu      sync.Mutex
	rows    map[string][]byte
	applied uint64
	reads   int
	failing error // of Decide
	unread  error // of Registry
}

func newRecords() *records { return &records{rows: map[string][]byte{}} }

func (r *records) Registry(string) (map[string][]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	return maps.Clone(r.rows), r.unread
}

func (r *records) Applied() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applied
}

func (r *records) Decide(_ context.Context, _ []catalog.Condition, commands ...catalog.Command) ([]error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failing != nil {
		return nil, r.failing
	}
	for _, c := range commands {
		f := c.(*catalog.RegistryFact)
		if f.Value == nil {
			delete(r.rows, f.Name)
		} else {
			r.rows[f.Name] = f.Value
		}
	}
	r.applied++
	return make([]error, len(commands)), nil
}

// registry makes a registry of a site with AEs in it.
func registry(t *testing.T, all ...AE) *Registry {
	t.Helper()
	rows := newRecords()
	r := NewRegistry("here", rows, rows)
	for _, ae := range all {
		if err := r.Put(context.Background(), ae); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// memory is an archive in memory.
type memory struct {
	mu     sync.Mutex
	all    []dimsetest.Instance
	stored []archive.Incoming
	store  func(archive.Incoming) (archive.Stored, error)
}

func (m *memory) refs() []archive.Ref {
	refs := make([]archive.Ref, len(m.all))
	for i, in := range m.all {
		refs[i] = archive.Ref{
			Study: in.StudyInstanceUID, Series: in.SeriesInstanceUID, SOP: in.SOPInstanceUID,
			Class: in.SOPClassUID, Syntax: dict.ExplicitLittleEndian, Number: uint64(i + 1), Bytes: int64(len(in.Dataset())),
		}
	}
	return refs
}

func (m *memory) Select(_ context.Context, study, series, instance string) iter.Seq2[archive.Ref, error] {
	return func(yield func(archive.Ref, error) bool) {
		found := false
		for _, r := range m.refs() {
			if study != "" && r.Study != study || series != "" && r.Series != series || instance != "" && r.SOP != instance {
				continue
			}
			found = true
			if !yield(r, nil) {
				return
			}
		}
		if !found {
			yield(archive.Ref{}, fault.New(fault.NotFound, "nothing"))
		}
	}
}

func (m *memory) Open(_ context.Context, ref archive.Ref) (archive.Instance, error) {
	return held{ref, m.all[ref.Number-1].Dataset()}, nil
}

func (m *memory) Headers(ctx context.Context, ref archive.Ref) (*dicom.Header, error) {
	return held{ref, m.all[ref.Number-1].Dataset()}.Header(), nil
}

func (m *memory) Prefetch(context.Context, archive.Ref) {}

func (m *memory) Store(_ context.Context, in archive.Incoming) (archive.Stored, error) {
	if _, err := io.Copy(io.Discard, in.Body); err != nil {
		return archive.Stored{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stored = append(m.stored, in)
	return m.store(in)
}

// held is an instance in memory.
type held struct {
	ref  archive.Ref
	data []byte
}

func (h held) Ref() archive.Ref             { return h.ref }
func (h held) Stored() io.ReaderAt          { return bytes.NewReader(h.data) }
func (h held) Values() (io.ReaderAt, error) { return bytes.NewReader(h.data), nil }
func (h held) Hash() [32]byte               { return [32]byte{} }
func (h held) Close() error                 { return nil }

func (h held) Header() *dicom.Header {
	explicit, _ := dict.Syntax(dict.ExplicitLittleEndian)
	header, err := dicom.ReadHeader(bytes.NewReader(h.data), explicit, dicom.DefaultLimits)
	if err != nil {
		panic(err)
	}
	return header
}

// answers is a query engine with a fixed answer.
type answers struct {
	matches []*dicom.Dataset
	silent  []string // once the matches have ended
	asks    bool     // other sites
	ignored []dict.Tag
	stale   time.Duration
	failure error // of Find
	breaks  error // of the matches, after the first

	asked query.Query
}

func (a *answers) Find(_ context.Context, q query.Query) (*query.Answer, error) {
	a.asked = q
	if a.failure != nil {
		return nil, a.failure
	}
	var silent []string
	answer := &query.Answer{
		Ignored: a.ignored, Staleness: a.stale,
		Matches: func(yield func(*dicom.Dataset, error) bool) {
			defer func() { silent = a.silent }()
			for _, d := range a.matches {
				if !yield(d, nil) {
					return
				}
				if a.breaks != nil {
					yield(nil, a.breaks)
					return
				}
			}
		},
	}
	if a.asks {
		answer.Silent = func() []string { return silent }
	}
	return answer, nil
}

// ledger takes audit events down.
type ledger struct {
	mu     sync.Mutex
	events []Event
}

func (l *ledger) add(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// of returns the events of an action.
func (l *ledger) of(a Action) []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.events), func(e Event) bool { return e.Action != a })
}

// endings are the studies of which associations have told that they ended.
type endings struct{ studies []string }

func (e *endings) Ended(studies ...string) { e.studies = append(e.studies, studies...) }

// from is a connection's far end.
func from(ip string) net.Addr {
	if ip == "" {
		return nil
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 40000))
}

// sessionOf is an association of a caller with all rights.
func sessionOf(f *Face, caller AE) *session {
	return &session{face: f, caller: caller, remote: "10.0.0.9", release: func() {}}
}

// identifier makes a query or retrieve identifier.
func identifier(level string, keys map[dict.Tag][]string) *dicom.Dataset {
	d := dicom.NewDataset()
	if level != "" {
		d.Set(dict.QueryRetrieveLevel, dict.CS, level)
	}
	for tag, values := range keys {
		entry, _ := dict.Lookup(tag)
		d.Set(tag, entry.VR, values...)
	}
	return d
}

// addressed is a connection in memory that has an address.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// loopback is a listener in memory whose connections come from 127.0.0.1.
type loopback struct{ *dimsetest.Listener }

func (l loopback) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return addressed{conn, from("127.0.0.1")}, nil
}

// serve runs a DIMSE server until the test ends.
func serve(t *testing.T, server *scp.Server) *dimsetest.Listener {
	t.Helper()
	l := dimsetest.Listen()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, loopback{l}) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// admitAll gives every association one session.
type admitAll struct{ session *scp.Session }

func (a admitAll) Admit(context.Context, *assoc.Request) (*scp.Session, error) { return a.session, nil }
