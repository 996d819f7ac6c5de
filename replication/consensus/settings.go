package consensus

import (
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
)

// Settings are times and limits. The zero value of a field is its default.
type Settings struct {
	// Election is how long a follower waits for its leader, and an election for
	// votes: 3 s, twenty times the longest round trip and then some.
	Election time.Duration
	// Lease is how long a leader leads without hearing from a majority: half of Election.
	Lease time.Duration
	// Commit is how long followers wait, at most twice, for the news of what was
	// committed when nothing follows it: 100 ms.
	Commit time.Duration
	// Stall is how long an operation of the log may take before the member falls
	// silent, so that others elect: 5 s.
	Stall time.Duration
	// Retain is the age up to which the log is kept: 14 days.
	Retain time.Duration
	// Trailing is the least number of entries that are kept, however old: 100,000,
	// so that a state machine can be copied while entries go on to arrive.
	Trailing uint64
	// Snapshot is how often the log may be cut: 10 min, and Threshold the
	// entries that make it worth while: 8,192.
	Snapshot  time.Duration
	Threshold uint64
	// Retry is the first pause after a failed bootstrap or fetch: 1 s, doubling to 1 min.
	Retry time.Duration
}

func (s Settings) withDefaults() Settings {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&s.Election, 3*time.Second)
	def(&s.Lease, s.Election/2)
	def(&s.Commit, 100*time.Millisecond)
	def(&s.Stall, 5*time.Second)
	def(&s.Retain, 14*24*time.Hour)
	def(&s.Snapshot, 10*time.Minute)
	def(&s.Retry, time.Second)
	if s.Trailing == 0 {
		s.Trailing = 100_000
	}
	if s.Threshold == 0 {
		s.Threshold = 8192
	}
	return s
}

const (
	// maxAppendEntries an RPC, and maxInFlight RPCs to a follower: the library's
	// defaults of 64 and 2 lose fifteenfold at 100 ms.
	maxAppendEntries = 512
	maxInFlight      = 16
	// logCacheEntries are kept in memory for followers that keep up.
	logCacheEntries = 2 * maxAppendEntries
	// rpcTimeout bounds one RPC; a bootstrap is not one.
	rpcTimeout = 10 * time.Second
	// repeatEvery is how often a follower is told what it was told before, by which
	// its leader learns that it is gone.
	repeatEvery = time.Second
	// maxPool is the connections kept to a peer: heartbeats, pipeline, votes.
	maxPool = 4
	// maxWaiting bounds proposals and verifications that wait.
	maxWaiting = 4096
	// enqueueTimeout bounds waiting for a main loop that hangs.
	enqueueTimeout = 5 * time.Second
	// watchEvery is how often the log is looked at, and waiters that no event wakes.
	watchEvery = 250 * time.Millisecond
	// markEvery is how often the mark of a log that grows is brought to where the log
	// is: what is acknowledged in between is not missed if an earlier copy is put back.
	markEvery = time.Second
	// followEvery wakes who waits for entries that no state machine sees.
	followEvery = 50 * time.Millisecond
)

// raft returns the library's configuration.
func (s Settings) raft(id string, log *slog.Logger) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.HeartbeatTimeout, c.ElectionTimeout = s.Election, s.Election
	c.LeaderLeaseTimeout, c.CommitTimeout = s.Lease, s.Commit
	c.MaxAppendEntries = maxAppendEntries
	// A buffered channel of proposals answers none of those that are in it when
	// Raft ends. Without it those that wait are gathered all the same.
	c.BatchApplyCh = false
	c.TrailingLogs, c.SnapshotInterval, c.SnapshotThreshold = s.Trailing, s.Snapshot, s.Threshold
	c.NoSnapshotRestoreOnStart = true // the state machine is on disk
	c.ShutdownOnRemove = false
	c.NoLegacyTelemetry = true
	c.Logger = libraryLogger(log)
	return c
}

// NewTransport returns the library's network transport over a stream layer, with
// the settings for long links. It lives until its Close, whatever Raft does.
func NewTransport(stream raft.StreamLayer, log *slog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, MaxPool: maxPool, MaxRPCsInFlight: maxInFlight, Timeout: rpcTimeout, Logger: libraryLogger(log),
	})
}
