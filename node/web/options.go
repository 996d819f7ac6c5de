package web

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"pelago/cluster/fault"
)

// Limits bounds what requests may hold. Zero fields take the default.
type Limits struct {
	// Retrieves, Searches and Stores are how many requests of a kind run at once;
	// one more waits for Wait and is then told 503. Each retrieve holds a copy
	// buffer of 256 KiB and up to HeldOpen opened instances.
	Retrieves, Searches, Stores int
	// Wait is how long a request waits for its turn.
	Wait time.Duration
	// Stall is how long a client may send or take nothing in the middle of a body.
	Stall time.Duration
	// HeldOpen is how many instances of one retrieve stay open between the check
	// of availability and the sending.
	HeldOpen int
	// PartHeader is the size of one part's header fields in a store request.
	PartHeader int
	// Parts is the number of parts of a store request.
	Parts int
	// Metadata is the size of the JSON or XML metadata of a store request.
	Metadata int64
	// Spool is the size on disk of the bulk data parts that come with it.
	Spool int64
	// FrameTables and Documents are bytes of frame tables and of finished metadata
	// documents that are kept for the next reader.
	FrameTables, Documents int64
	// Pixels is the largest decoded frame that is rendered, in pixels.
	Pixels int64
	// Decoded is how many bytes of decoded frames all requests hold at once; one
	// that needs more waits for Wait and is then told 503.
	Decoded int64
}

// DefaultLimits are the limits used unless told otherwise.
var DefaultLimits = Limits{
	Retrieves: 256, Searches: 256, Stores: 64,
	Wait: 10 * time.Second, Stall: 60 * time.Second,
	HeldOpen: 512, PartHeader: 16 << 10, Parts: 100_000,
	Metadata: 64 << 20, Spool: 4 << 30,
	FrameTables: 16 << 20, Documents: 64 << 20,
	Pixels: 64 << 20, Decoded: 256 << 20,
}

// orDefaults fills the zero fields.
func (l Limits) orDefaults() Limits {
	d := DefaultLimits
	ints := []struct {
		to   *int
		from int
	}{
		{&l.Retrieves, d.Retrieves}, {&l.Searches, d.Searches}, {&l.Stores, d.Stores},
		{&l.HeldOpen, d.HeldOpen}, {&l.PartHeader, d.PartHeader}, {&l.Parts, d.Parts},
	}
	for _, f := range ints {
		if *f.to <= 0 {
			*f.to = f.from
		}
	}
	longs := []struct {
		to   *int64
		from int64
	}{
		{&l.Metadata, d.Metadata}, {&l.Spool, d.Spool}, {&l.FrameTables, d.FrameTables},
		{&l.Documents, d.Documents}, {&l.Pixels, d.Pixels}, {&l.Decoded, d.Decoded},
	}
	for _, f := range longs {
		if *f.to <= 0 {
			*f.to = f.from
		}
	}
	if l.Wait <= 0 {
		l.Wait = d.Wait
	}
	if l.Stall <= 0 {
		l.Stall = d.Stall
	}
	return l
}

// Options configures a [Handler]. The zero value serves.
type Options struct {
	Base    string   // path of the DICOMweb services; "/dicom-web" by default
	URI     string   // path of WADO-URI; "/wado" by default
	AE      string   // this node's AE title, as (0008,0054) of answers; "" = left out
	Issuer  string   // default issuer of Patient ID for what comes in and for queries; "" = the site's
	Charset string   // character set assumed where (0008,0005) is absent; "" = none
	Origins []string // origins that browsers may call from: "https://viewer.example", or "*"
	TempDir string   // where bulk data parts of a store request wait; "" = the system's
	Limits  Limits

	Arrivals Arrivals // nil: nobody is told
	// Node is this node's id, which who has stored here names to other nodes (or to
	// this one) to read what it has written; "" = it is not told.
	Node string
	// After returns once this node knows what another had acknowledged before the
	// call; nil: nobody may ask for that.
	After func(ctx context.Context, node string) error
	// Takes says why no instance is taken in, with an [archive.Closed]; nil, or an
	// error of nil: they are. Asked for each request.
	Takes func() error

	Login  Login        // nil: everyone is anonymous and may do everything
	Audit  Auditor      // nil: nothing is recorded
	Metric Metric       // nil: nothing is measured
	Log    *slog.Logger // nil: nothing is logged
}

// Arrivals is told of which studies a store request has stored that has ended.
// *journal.Journal is one.
type Arrivals interface{ Ended(studies ...string) }

// Login tells who asks. It is called once a request, before anything else of it
// is looked at, preflight requests excepted.
type Login interface {
	// Login returns the user's name, "" for anonymous. fault.Denied refuses:
	// without credentials 401, with them 403.
	Login(r *http.Request) (user string, err error)
}

// Action is what a request does to the archive.
type Action string

// The actions, as audit events and metrics name them.
const (
	ActionSearch   Action = "search"
	ActionRetrieve Action = "retrieve"
	ActionMetadata Action = "metadata"
	ActionFrames   Action = "frames"
	ActionBulk     Action = "bulkdata"
	ActionRendered Action = "rendered"
	ActionStore    Action = "store"
	ActionOther    Action = "other"
)

// Event is one finished request as the audit trail wants it (PS3.15 A.5). It
// may hold patient data and must not be logged.
type Event struct {
	Action    Action
	User      string
	Remote    string // address of the client
	Study     string // UIDs of the path, as far as it names them
	Series    string
	Instance  string
	Query     string        // the query string of a search
	Instances int           // sent or stored
	Stored    []StoredStudy // of a store request, what it stored by study
	Failed    int           // instances refused or not sent
	Status    int           // HTTP status; 0 when the connection was cut
	Kind      fault.Kind
	Duration  time.Duration
	Bytes     int64 // of the answer's body
}

// StoredStudy is what a store request stored of one study. It may hold patient
// data and must not be logged.
type StoredStudy struct {
	Study     string // "" for studies beyond the first 1,024 of a request
	Patient   string // Patient ID of the first instance
	Classes   []string
	Instances int
}

// Auditor records events. Audit is called at the end of a request by its own
// goroutine; the client's connection waits for it.
type Auditor interface {
	Audit(ctx context.Context, e Event)
}

// Metric observes finished requests. It must not block.
type Metric interface {
	// Observe reports one request: the operation (an [Action]), its HTTP status,
	// how long it took and the bytes sent; status 0 means that it was cut.
	Observe(operation string, status int, took time.Duration, bytes int64)
}
