package admin

import (
	"time"

	"pelago/node/work"
)

// unknown is what numbers of the status are that cannot be told: zero would
// say that all is well.
const unknown = -1

// Status is the answer of GET /api/status. docs/operations.md describes every
// field.
type Status struct {
	Network          string  `json:"network"`
	Site             string  `json:"site"`
	Node             string  `json:"node"`
	Leader           string  `json:"leader"` // node id; "": none is known
	AppliedIndex     uint64  `json:"applied_index"`
	StalenessSeconds float64 `json:"staleness_seconds"` // -1: not confirmed since the start
	Sites            []Site  `json:"sites"`
	Patients         uint64  `json:"patients"`
	Studies          uint64  `json:"studies"`
	Series           uint64  `json:"series"`
	Instances        uint64  `json:"instances"`
	ProtectedStudies uint64  `json:"protected_studies"`
	PendingJournal   uint64  `json:"pending_journal"`
	LayoutVersion    uint64  `json:"layout_version"`
	SurvivesSites    int     `json:"survives_sites"`
	Repair           Repair  `json:"repair"`
	Spread           Spread  `json:"spread"`
	Layout           Layout  `json:"layout"`

	// Refuses says why this node takes no instances in; left out of one that does.
	Refuses string `json:"refuses,omitempty"`

	// CommitIndex is the highest that the leader has told of; the difference to
	// AppliedIndex is what is known to be missing here.
	CommitIndex uint64 `json:"commit_index"`
	// StateHash is the hash of all that the catalogue holds as committed at
	// StateIndex, hexadecimal: nodes with the same index have the same hash.
	StateIndex uint64 `json:"state_index"`
	StateHash  string `json:"state_hash"`
	// RejectedFacts are facts of the journal that the catalogue refused.
	RejectedFacts uint64 `json:"rejected_facts"`
	// HotBytes, CachedBytes and HeldBytes are parts of BulkBytes: what arrived here,
	// copies of what rests at other nodes, and shards of it.
	HotBytes    int64      `json:"hot_bytes"`
	CachedBytes int64      `json:"cached_bytes"`
	HeldBytes   int64      `json:"held_bytes"`
	Transfers   []Transfer `json:"transfers"`

	Version           string `json:"version"`
	UptimeSeconds     int64  `json:"uptime_seconds"`
	AE                string `json:"ae"`
	StagingBytes      int64  `json:"staging_bytes"`
	BulkBytes         int64  `json:"bulk_bytes"`
	FreeBytes         int64  `json:"free_bytes"`
	Quarantined       int    `json:"quarantined"`
	PendingCommitment int    `json:"pending_commitment"`
	// EpochsHeld and EpochsLacking are of the network's epoch keys, of which a member
	// is to have all; a witness lacks none. PackingWaits: what is stored stays in
	// staging until they are here.
	EpochsHeld    int  `json:"epochs_held"`
	EpochsLacking int  `json:"epochs_lacking"`
	PackingWaits  bool `json:"packing_waits"`
	// MendedKeyRanges are rotten ranges of one file of the study keys that the
	// other made up for since the start, DamagedKeyRanges those of both.
	MendedKeyRanges  int    `json:"mended_key_ranges"`
	DamagedKeyRanges int    `json:"damaged_key_ranges"`
	Tasks            []Task `json:"tasks"`
}

// Spread is what of this node's packs waits to be at other sites, or to be striped
// anew as the network grows.
type Spread struct {
	Packs         int     `json:"packs"`
	Bytes         int64   `json:"bytes"`
	OldestSeconds float64 `json:"oldest_seconds"` // how long the one that has waited longest has
}

// Repair is how far this node is with the shards that belong to it.
type Repair struct {
	Queued  int `json:"queued"` // that are lacking
	Running int `json:"running"`
	// Waiting are those of the queued that could not be had yet, Lost those of them that
	// nobody has enough for.
	Waiting   int   `json:"waiting,omitempty"`
	Lost      int   `json:"lost,omitempty"`
	DoneBytes int64 `json:"done_bytes"` // since the start
	// BytesPerSecond come from other nodes; LeftSeconds until the end, at that rate,
	// -1: not known.
	BytesPerSecond int64 `json:"bytes_per_second"`
	LeftSeconds    int64 `json:"left_seconds"`
	Full           bool  `json:"full,omitempty"` // there is no room here
}

// Layout is where the network's shards belong.
type Layout struct {
	// From is the version that LayoutVersion is changed from; 0: no change is under
	// way. Waiting are the nodes that it waits for.
	From    uint64   `json:"from"`
	Waiting []string `json:"waiting,omitempty"`
	Code    Code     `json:"code"`
	// CapacityBytes of shards fit until the first node is full; PledgedBytes are those
	// that all nodes pledge together.
	CapacityBytes int64 `json:"capacity_bytes"`
	PledgedBytes  int64 `json:"pledged_bytes"`
	// RebuildableBytes of shards fit so that those of any one site that is lost could still
	// be made anew; 0: there are not enough sites for that, or it is not known.
	RebuildableBytes int64 `json:"rebuildable_bytes"`
	// Limits say what keeps the network from surviving or holding more.
	Limits []string `json:"limits,omitempty"`
	// Shortages are the sites whose shards would not all find a place if that site alone
	// were lost now, those that lack most first.
	Shortages []Shortage `json:"shortages,omitempty"`
}

// Shortage is what of a site's shards finds no place elsewhere.
type Shortage struct {
	Site  string `json:"site"`
	Bytes int64  `json:"bytes"`
}

// Code is how new stripes are made: the answer of GET /api/code.
type Code struct {
	K        int    `json:"k"` // 0: none, packs stay whole
	M        int    `json:"m"`
	Survives int    `json:"survives"`     // sites that may be lost
	By       string `json:"by,omitempty"` // the operator who set it; "": it was chosen by rule, and may rise by it
	Sites    int    `json:"sites"`        // that hold shards now
}

// Task is a background task.
type Task struct {
	Name     string `json:"name"`
	State    string `json:"state"` // waiting, running, backoff, stopping, done, failed
	Done     int64  `json:"done,omitempty"`
	Total    int64  `json:"total,omitempty"` // 0: unknown
	Restarts int64  `json:"restarts,omitempty"`
	Error    string `json:"error,omitempty"` // the latest failure
	// ErrorAt is when that was, RFC 3339.
	ErrorAt string `json:"error_at,omitempty"`
	// LastRun is when the latest round of a periodic task began, RFC 3339.
	LastRun string `json:"last_run,omitempty"`
}

// TasksOf lists tasks for the status.
func TasksOf(statuses []work.Status) []Task {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339)
	}
	all := make([]Task, len(statuses))
	for i, s := range statuses {
		all[i] = Task{
			Name: s.Name, State: string(s.State), Done: s.Done, Total: s.Total, Restarts: s.Restarts,
			Error: s.LastError, ErrorAt: at(s.LastErrorAt), LastRun: at(s.LastRun),
		}
	}
	return all
}

// Protection is the answer of GET /api/studies/{uid}/protection.
type Protection struct {
	State         string `json:"state"` // local, sealing, protected, degraded, lost
	SurvivesSites int    `json:"survives_sites"`
	Packs         []Pack `json:"packs"`
}

// Pack is a pack of a study, or what of the study is still in staging.
type Pack struct {
	ID     string  `json:"id"`
	K      int     `json:"k"`
	M      int     `json:"m"`
	Shards []Shard `json:"shards"`
}

// Shard is where one of a pack's shards rests.
type Shard struct {
	Index int    `json:"index"`
	Site  string `json:"site"`
	Node  string `json:"node"`
	State string `json:"state"`
}
