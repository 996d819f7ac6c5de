package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestAPeerThatIsDownIsWorthALineAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := libraryLogger(slog.New(slog.NewTextHandler(&out, nil)))
		for range 600 { // ten minutes
			for _, peer := range []string{"a", "b"} {
				log.Error("failed to heartbeat to", "peer", raft.ServerAddress(peer), "backoff time", time.Second, "error", errors.New("refused"))
			}
			log.Debug("nobody wants to know")
			time.Sleep(time.Second)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 20 {
			t.Errorf("%d lines, want 10 of each of two", len(lines))
		}
		for i, line := range lines {
			if want := `level=WARN msg="raft: failed to heartbeat to" peer=` + string("ab"[i%2]) + ` backoff_time=1s error=refused`; !strings.Contains(line, want) {
				t.Errorf("%s, want %s", line, want)
			}
			if strings.Contains(line, "repeated=59") != (i > 1) {
				t.Errorf("line %d: %s", i, line)
			}
		}
	})
}

func TestWarningsAreBoundedAndTellNoMessages(t *testing.T) {
	var out bytes.Buffer
	s := &sayer{log: slog.New(slog.NewTextHandler(&out, nil)), said: map[string]*said{}}
	for i := range 3 * maxSaid {
		s.Accept("raft", hclog.Warn, "failed to contact", "server-id", fmt.Sprint(i))
	}
	if len(s.said) > maxSaid || strings.Count(out.String(), "\n") != 3*maxSaid {
		t.Errorf("%d are remembered, of %d lines", len(s.said), strings.Count(out.String(), "\n"))
	}
	s.Accept("raft", hclog.Error, "got unexpected command", "command", hclog.Fmt("%#v", "an entry"))
	if strings.Contains(out.String(), "an entry") {
		t.Error("a message is in the log")
	}
}

func TestOrdinaryComingsAndGoingsAreNoAlarm(t *testing.T) {
	for _, test := range []struct {
		level hclog.Level
		text  string
		err   error
		want  slog.Level
	}{
		{hclog.Warn, "appendEntries rejected, sending older logs", nil, slog.LevelDebug},
		{hclog.Warn, "failed to get previous log", raft.ErrLogNotFound, slog.LevelDebug},
		{hclog.Warn, "failed to get previous log", errors.New("input/output error"), slog.LevelWarn},
		{hclog.Error, "failed to get log", errors.New("input/output error"), slog.LevelError},
		{hclog.Error, "failed to appendEntries to", errors.New(errBehind.Error()), slog.LevelDebug},
		{hclog.Error, "failed to appendEntries to", errors.New("refused"), slog.LevelWarn},
		{hclog.Error, "failed to heartbeat to", errors.New("refused"), slog.LevelWarn},
		{hclog.Error, "failed to commit logs", errors.New("refused"), slog.LevelError},
	} {
		if got := gravity(test.level, test.text, []any{"error", test.err}); got != test.want {
			t.Errorf("%s, %v: %v, want %v", test.text, test.err, got, test.want)
		}
	}
}
