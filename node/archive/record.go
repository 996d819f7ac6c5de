package archive

import (
	"fmt"
	"log/slog"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/staging"
	"pelago/shard/pack"
)

// recordVersion is the version of the records this code writes, and the highest
// that it reads.
const recordVersion = 1

// marshal encodes a record. Our own records always encode: their strings are
// checked on the way in.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("archive: a record that does not encode: %v", err))
	}
	return b
}

func unmarshal(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fault.New(fault.Corrupt, "store: record does not parse: %w", err)
	}
	if v, ok := m.(interface{ GetVersion() uint32 }); ok && v.GetVersion() > recordVersion {
		return fault.New(fault.Unsupported, "store: record of version %d, newer than %d", v.GetVersion(), recordVersion)
	}
	return nil
}

func stagedLocation(at staging.Placed) *archivepb.Location {
	location := &archivepb.Location{Extents: make([]*archivepb.Extent, len(at.Extents))}
	for i, e := range at.Extents {
		location.Extents[i] = &archivepb.Extent{Segment: e.Segment, Offset: e.Offset, Length: e.Length}
	}
	return location
}

// placed is the inverse of stagedLocation.
func placed(l *archivepb.Location) staging.Placed {
	at := staging.Placed{Extents: make([]staging.Extent, len(l.Extents))}
	for i, e := range l.Extents {
		at.Extents[i] = staging.Extent{Segment: e.Segment, Offset: e.Offset, Length: e.Length}
		at.Bytes += e.Length
	}
	return at
}

func packedLocation(id pack.ID, e *pack.Entry) *archivepb.Location {
	return &archivepb.Location{Pack: id[:], Chunks: archivepb.Chunks(e.Chunks)}
}

func packEntry(l *archivepb.Location, in *archivepb.Instance) *pack.Entry {
	e := &pack.Entry{Bytes: in.Bytes, Chunks: archivepb.PackChunks(l.Chunks)}
	copy(e.Hash[:], in.Hash)
	return e
}

// pebbleLogger gives Pebble's words to slog, and its last words to die: Pebble
// calls Fatalf where it cannot go on (a failed WAL write), and by default ends
// the process there and then.
type pebbleLogger struct {
	log  *slog.Logger
	name string
	die  func(error)
}

func (l pebbleLogger) Infof(format string, args ...any) {
	l.log.Debug("pebble", "store", l.name, "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.log.Error("pebble", "store", l.name, "message", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	err := fault.New(fault.Unavailable, "%s: "+format, append([]any{l.name}, args...)...)
	l.log.Error("pebble cannot go on", "store", l.name, "error", err)
	l.die(err)
	select {} // Pebble relies on Fatalf not returning; die ends the process
}
