package consensus

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"pelago/cluster/fault"
	"pelago/replication"
)

// maxSnapshots is how many positions are remembered.
const maxSnapshots = 64

// snapshots is the library's snapshot store: positions in memory. After a
// restart the state machine's own position is the only one.
//
// It offers the oldest whose entry is still in the log. A member that copies a
// state machine takes its time, and must find itself beyond the snapshot that it
// is sent afterwards, or it would copy again for ever.
type snapshots struct {
	first func() uint64 // of the log

	mu        sync.Mutex
	taken     []*sink // ascending
	installed *sink   // received, and not yet restored
}

var _ raft.SnapshotStore = (*snapshots)(nil)

func newSnapshots(at replication.Position, first func() uint64) *snapshots {
	s := &snapshots{first: first}
	if at.Index > 0 {
		k := &sink{position: at}
		k.buf.Write(at.Encode())
		s.taken = []*sink{k}
	}
	return s
}

// Create begins a snapshot.
func (s *snapshots) Create(_ raft.SnapshotVersion, index, term uint64, c raft.Configuration, at uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &sink{store: s, position: replication.Position{Index: index, Term: term, MembersIndex: at, Members: members(c)}}, nil
}

// List returns the snapshot that is offered.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.first()
	for len(s.taken) > 1 && s.taken[0].position.Index < first {
		s.taken = s.taken[1:]
	}
	if len(s.taken) == 0 {
		return nil, nil
	}
	return []*raft.SnapshotMeta{s.taken[0].meta()}, nil
}

// Open returns a snapshot: the one that is offered, or that has just been received.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.taken
	if s.installed != nil {
		all = append([]*sink{s.installed}, all...)
	}
	for _, k := range all {
		if k.ID() == id {
			return k.meta(), io.NopCloser(bytes.NewReader(k.buf.Bytes())), nil
		}
	}
	return nil, nil, fault.New(fault.NotFound, "consensus: no snapshot %s", id)
}

func (s *snapshots) add(k *sink) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !k.taken {
		s.installed = k
		return
	}
	if n := len(s.taken); n > 0 && s.taken[n-1].position.Index == k.position.Index {
		return
	}
	s.taken = append(s.taken, k)
	if len(s.taken) > maxSnapshots {
		// Every other one goes, but for the oldest and the newest.
		kept := s.taken[:0]
		for i, k := range s.taken {
			if i%2 == 0 || i == len(s.taken)-1 {
				kept = append(kept, k)
			}
		}
		s.taken = kept
	}
}

// sink is a snapshot, being written or written.
type sink struct {
	store    *snapshots
	position replication.Position
	taken    bool // here, of this state machine; else received
	buf      bytes.Buffer
}

func (k *sink) Write(b []byte) (int, error) {
	if k.buf.Len()+len(b) > replication.MaxPositionBytes {
		return 0, fault.New(fault.Invalid, "consensus: a snapshot of over %d bytes", replication.MaxPositionBytes)
	}
	return k.buf.Write(b)
}

func (k *sink) Close() error {
	k.store.add(k)
	return nil
}

func (k *sink) Cancel() error { return nil }

func (k *sink) ID() string {
	return fmt.Sprintf("%d-%d", k.position.Term, k.position.Index)
}

func (k *sink) meta() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version: 1, ID: k.ID(), Index: k.position.Index, Term: k.position.Term,
		Configuration: configuration(k.position.Members), ConfigurationIndex: k.position.MembersIndex,
		Size: int64(k.buf.Len()),
	}
}
