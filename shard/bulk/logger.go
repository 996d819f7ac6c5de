package bulk

import (
	"fmt"
	"log/slog"
	"sync"
)

// logger is Pebble's: information is dropped, errors are logged, and what Pebble
// calls fatal goes to Options.Fatal instead of os.Exit.
type logger struct {
	log   *slog.Logger
	fatal func(error)

	mu     sync.Mutex
	failed error
}

func (l *logger) Infof(string, ...any) {}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error("bulk storage", "error", fmt.Sprintf(format, args...))
}

// Fatalf remembers the failure before it tells: Pebble goes on when it returns.
func (l *logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("pebble: "+format, args...)
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	l.mu.Unlock()
	l.log.Error("bulk storage failed", "error", err)
	if l.fatal != nil {
		l.fatal(err)
	}
}

func (l *logger) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
