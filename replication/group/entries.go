package group

import (
	"context"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/replication/consensus"
	"pelago/replication/raftlog"
)

const (
	entryHeader = 8 + 8 + 1 + 8 + 4 + 4
	// maxEntry is the longest entry: a membership.
	maxEntry = max(raftlog.MaxEntryBytes, raftlog.MaxConfigurationBytes)
	// maxEntriesBytes bounds an answer with entries.
	maxEntriesBytes = consensus.MaxCommittedBytes + consensus.MaxCommitted*entryHeader
)

// serveEntries answers with committed entries, as many as fit.
func (g *Group) serveEntries(w http.ResponseWriter, r *http.Request) {
	if err := g.sameGeneration(r); err != nil {
		call.Refuse(w, err)
		return
	}
	first, err := strconv.ParseUint(r.URL.Query().Get("first"), 10, 64)
	last, err2 := strconv.ParseUint(r.URL.Query().Get("last"), 10, 64)
	if err := errors.Join(err, err2); err != nil {
		call.Refuse(w, fault.New(fault.Invalid, "group: entries of no index"))
		return
	}
	logs, err := g.node.Committed(first, last)
	if err != nil {
		call.Refuse(w, err)
		return
	}
	var b []byte
	for _, l := range logs {
		b = appendEntry(b, l)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(b) // an asker that is gone needs no answer
}

// appendEntry appends an entry as it goes between nodes (docs/formats/raft.md).
func appendEntry(b []byte, l *raft.Log) []byte {
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	b = append(b, byte(l.Type))
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(at))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Data)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(l.Extensions)))
	return append(append(b, l.Data...), l.Extensions...)
}

// readEntries reads what appendEntry wrote, entries that follow each other from first on.
func readEntries(b []byte, first, last uint64) ([]*raft.Log, error) {
	var logs []*raft.Log
	for next := first; len(b) > 0; next++ {
		if len(b) < entryHeader {
			return nil, fault.New(fault.Protocol, "group: an entry of %d bytes", len(b))
		}
		l := &raft.Log{Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]), Type: raft.LogType(b[16])}
		if at := int64(binary.BigEndian.Uint64(b[17:])); at != 0 {
			l.AppendedAt = time.Unix(0, at)
		}
		data, extensions := uint64(binary.BigEndian.Uint32(b[25:])), uint64(binary.BigEndian.Uint32(b[29:]))
		b = b[entryHeader:]
		if l.Index != next || l.Index > last || data+extensions > maxEntry || data+extensions > uint64(len(b)) {
			return nil, fault.New(fault.Protocol, "group: entry %d of %d bytes where %d was asked for", l.Index, data+extensions, next)
		}
		l.Data = b[:data:data]
		if extensions > 0 {
			l.Extensions = b[data : data+extensions : data+extensions]
		}
		b = b[data+extensions:]
		logs = append(logs, l)
	}
	if len(logs) == 0 {
		return nil, fault.New(fault.Protocol, "group: no entries")
	}
	return logs, nil
}

// Fetch implements consensus.Peers: it asks one member after the other.
func (g *Group) Fetch(ctx context.Context, first, last uint64) ([]*raft.Log, error) {
	var errs []error
	for _, node := range g.sources(nil) {
		logs, err := g.fetchFrom(ctx, node, first, last)
		if err == nil {
			return logs, nil
		}
		errs = append(errs, err)
	}
	return nil, fault.New(fault.Unavailable, "group: entries %d to %d: %w", first, last, errors.Join(append(errs, errNobody)...))
}

var errNobody = errors.New("no other member has answered")

func (g *Group) fetchFrom(ctx context.Context, node string, first, last uint64) ([]*raft.Log, error) {
	ctx, cancel := context.WithTimeout(ctx, g.settings.Propose)
	defer cancel()
	generation, _ := g.node.Generation()
	query := url.Values{"generation": {strconv.FormatUint(generation, 10)}}
	query.Set("first", strconv.FormatUint(first, 10))
	query.Set("last", strconv.FormatUint(last, 10))
	response, err := g.o.Peers.Do(ctx, node, http.MethodGet, "/raft/entries?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	b, err := call.Read(response.Body, maxEntriesBytes)
	if err != nil {
		return nil, err
	}
	return readEntries(b, first, last)
}
