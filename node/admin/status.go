package admin

import (
	"time"

	"pelago/node/work"
)

// Status is the answer of GET /api/status.
type Status struct {
	Network          string  `json:"network"`
	Site             string  `json:"site"`
	Node             string  `json:"node"`
	Leader           string  `json:"leader"`
	AppliedIndex     uint64  `json:"applied_index"`
	StalenessSeconds float64 `json:"staleness_seconds"` // at most; -1: not known
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

	Version           string `json:"version"`
	UptimeSeconds     int64  `json:"uptime_seconds"`
	AE                string `json:"ae"`
	StagingBytes      int64  `json:"staging_bytes"`
	BulkBytes         int64  `json:"bulk_bytes"`
	FreeBytes         int64  `json:"free_bytes"`
	Quarantined       int    `json:"quarantined"`
	PendingCommitment int    `json:"pending_commitment"`
	// MendedKeyRanges are rotten ranges of one file of the study keys that the
	// other made up for since the start, DamagedKeyRanges those of both.
	MendedKeyRanges  int    `json:"mended_key_ranges"`
	DamagedKeyRanges int    `json:"damaged_key_ranges"`
	Tasks            []Task `json:"tasks"`
}

// Site is a hospital in the status.
type Site struct {
	Name  string `json:"name"`
	State string `json:"state"` // the best of its nodes'
	Nodes []Node `json:"nodes"`
}

// Node is a node in the status.
type Node struct {
	ID            string  `json:"id"`
	Address       string  `json:"address"` // of its port for other nodes
	State         string  `json:"state"`   // alive, drained, silent, removed
	CapacityBytes int64   `json:"capacity_bytes"`
	UsedBytes     int64   `json:"used_bytes"`
	AppliedIndex  uint64  `json:"applied_index"` // as it said last
	RTTSeconds    float64 `json:"rtt_seconds"`   // 0: not measured
	Self          bool    `json:"self,omitempty"`
	Leader        bool    `json:"leader,omitempty"`
	Votes         bool    `json:"votes,omitempty"`
	Signs         bool    `json:"signs,omitempty"` // lets others in
	Witness       bool    `json:"witness,omitempty"`
	Drained       bool    `json:"drained,omitempty"`
}

// Repair is the repair line's length.
type Repair struct {
	Queued  int `json:"queued"`
	Running int `json:"running"`
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
