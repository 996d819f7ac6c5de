package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/fault"
)

// Entry is an event as it is read. IT MAY HOLD PATIENT DATA.
type Entry struct {
	Number Cursor
	Event  Event
	Lost   uint64 // events between this one and the one before that are not there any more: damage, or retention
}

// Read calls each for the durable events from c on, in order, and returns the
// cursor behind the last one. An error of each ends it and is returned, with the
// cursor of the event that it was for.
func (l *Log) Read(ctx context.Context, c Cursor, each func(Entry) error) (Cursor, error) {
	c = max(c, 1)
	l.mu.Lock()
	segments, end := slices.Clone(l.segments), l.next
	l.mu.Unlock()
	for i, s := range segments {
		limit := end
		if i+1 < len(segments) {
			limit = segments[i+1].first
		}
		if limit <= c {
			continue
		}
		var err error
		if c, err = l.readSegment(ctx, s, c, limit, each); err != nil {
			return c, err
		}
	}
	return c, nil
}

// readSegment reads a segment's events c..limit-1.
func (l *Log) readSegment(ctx context.Context, s segment, c, limit Cursor, each func(Entry) error) (Cursor, error) {
	f, err := l.options.FS.Open(s.path, vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil // retired meanwhile
	}
	if err != nil {
		return c, fault.New(fault.Unavailable, "audit: open segment: %w", err)
	}
	defer f.Close()
	r := newRecords(f, s.size)
	for {
		if err := ctx.Err(); err != nil {
			return c, err
		}
		ok, err := r.next()
		if err != nil {
			return c, fault.New(fault.Unavailable, "audit: %w", err)
		}
		if !ok {
			return c, nil
		}
		if r.number < c || r.number >= limit {
			continue
		}
		e := Entry{Number: r.number, Lost: uint64(r.number - c)}
		if err := json.Unmarshal(r.body, &e.Event); err != nil {
			continue // its checksum is right, so a newer program wrote it; the next one tells the loss
		}
		if err := each(e); err != nil {
			return r.number, err
		}
		c = r.number + 1
	}
}

// Format is how events are exported.
type Format uint8

// The formats, each of one event a line.
const (
	JSONLines Format = iota // {"number":…, "lost":…, "event":{…}}
	XMLLines                // an AuditMessage of PS3.15 A.5.1
)

// Export writes the durable events from c on, one a line, and returns the cursor
// to go on from. WHAT IT WRITES MAY HOLD PATIENT DATA.
func (l *Log) Export(ctx context.Context, c Cursor, format Format, w io.Writer) (Cursor, error) {
	out := bufio.NewWriterSize(w, 64<<10)
	next, err := l.Read(ctx, c, func(e Entry) error {
		var line []byte
		var err error
		switch format {
		case XMLLines:
			line, err = e.Event.XML(l.options.Source)
		case JSONLines:
			line, err = json.Marshal(struct {
				Number Cursor `json:"number"`
				Lost   uint64 `json:"lost,omitempty"`
				Event  *Event `json:"event"`
			}{e.Number, e.Lost, &e.Event})
		default:
			err = fault.New(fault.Invalid, "unknown format %d", format)
		}
		if err != nil {
			return fmt.Errorf("audit: export: %w", err)
		}
		_, err = out.Write(append(line, '\n'))
		return err
	})
	if flushErr := out.Flush(); flushErr != nil {
		return c, fmt.Errorf("audit: export: %w", flushErr) // how much of it came through is not known
	}
	return next, err
}
