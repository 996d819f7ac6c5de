package consensus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// repeatAfter is how long a warning of the library is not repeated about the same
	// node: one that is down would be worth several with each attempt to reach it.
	repeatAfter = time.Minute
	// maxSaid bounds the warnings that are remembered.
	maxSaid = 1024
)

// libraryLogger turns the library's warnings into lines of ours. They name nodes,
// indexes and terms, and never an entry.
func libraryLogger(log *slog.Logger) hclog.Logger {
	if log == nil {
		return hclog.NewNullLogger()
	}
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&sayer{log: log, said: map[string]*said{}})
	return l
}

// sayer writes warnings, each about the same node once in a while.
type sayer struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]*said // by text and node
}

// said is when a warning was written last, and how often it has come since.
type said struct {
	at    time.Time
	since int
}

// Accept takes a line of the library: a text, and pairs of names and values.
func (s *sayer) Accept(_ string, level hclog.Level, text string, args ...any) {
	if level < hclog.Warn {
		return
	}
	about := text
	var attributes []any
	for i := 0; i+1 < len(args); i += 2 {
		name, ok := args[i].(string)
		if _, formatted := args[i+1].(hclog.Format); !ok || formatted { // it may be a message, with what it holds
			continue
		}
		value := fmt.Sprint(args[i+1])
		switch name {
		case "peer", "server-id", "id", "from", "candidate":
			about += "\x00" + value
		}
		attributes = append(attributes, strings.NewReplacer("-", "_", " ", "_").Replace(name), value)
	}
	repeated, ok := s.due(about, time.Now())
	if !ok {
		return
	}
	if repeated > 0 {
		attributes = append(attributes, "repeated", repeated)
	}
	s.log.Log(context.Background(), gravity(level, text, args), "raft: "+text, attributes...)
}

// gravity is the level at which a line of the library is written. What comes with
// every node that joins, comes back or goes is for who looks for it: that two logs
// part somewhere, that a catalogue is being copied, that a connection is over. One
// attempt to reach a node is a warning, for the next follows.
func gravity(level hclog.Level, text string, args []any) slog.Level {
	if text == "appendEntries rejected, sending older logs" || text == "failed to flush response" {
		return slog.LevelDebug
	}
	for _, arg := range args {
		err, ok := arg.(error)
		if ok && (errors.Is(err, raft.ErrLogNotFound) || strings.Contains(err.Error(), errBehind.Error())) { // that comes from afar, as text
			return slog.LevelDebug
		}
	}
	if level < hclog.Error || strings.HasPrefix(text, "failed to heartbeat") || strings.HasPrefix(text, "failed to appendEntries") {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// due reports whether a warning is to be written, and how often it was not.
func (s *sayer) due(about string, now time.Time) (repeated int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.said[about]
	if w != nil && now.Sub(w.at) < repeatAfter {
		w.since++
		return 0, false
	}
	if w == nil {
		if len(s.said) >= maxSaid {
			s.forgetLocked()
		}
		w = &said{}
		s.said[about] = w
	}
	repeated = w.since
	w.at, w.since = now, 0
	return repeated, true
}

// forgetLocked makes room: the older half goes.
func (s *sayer) forgetLocked() {
	abouts := slices.SortedFunc(maps.Keys(s.said), func(a, b string) int { return s.said[a].at.Compare(s.said[b].at) })
	for _, about := range abouts[:len(abouts)/2] {
		delete(s.said, about)
	}
}
