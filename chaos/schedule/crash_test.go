package schedule

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lanes is how many lives are lived beside each other.
const lanes = 4

// stride is how many steps are between two crashes. A short run goes through as many as a
// development loop can wait for, at the same places every time.
func stride(every, short int) int {
	if testing.Short() {
		return short
	}
	return every
}

// crashed lives a life for each step, in which the power goes there.
func crashed(t *testing.T, every int, arm func(l *life, at int)) {
	t.Helper()
	whole := inLife(t, nil, nil)
	if t.Failed() {
		return
	}
	for lane := range lanes {
		t.Run(fmt.Sprintf("lane %d", lane), func(t *testing.T) {
			t.Parallel()
			crashes := 0
			for at := 1 + lane*every; at <= whole.lived; at += lanes * every {
				l := inLife(t, nil, func(l *life) { arm(l, at) })
				if l.crashed {
					crashes++
				}
				if t.Failed() {
					t.Fatalf("with the power gone at step %d of %d", at, whole.lived)
				}
			}
			// The order of tasks varies: a life may be over some steps earlier.
			if want := whole.lived / (lanes * every) * 3 / 4; crashes < want {
				t.Errorf("%d crashes, want %d", crashes, want)
			}
		})
	}
}

func TestANodeLosesPowerAtEachStep(t *testing.T) {
	t.Parallel()
	crashed(t, stride(1, 20), func(l *life, at int) { l.crashAt = at })
}

func TestTheNetworkLosesPowerAtEachStep(t *testing.T) {
	t.Parallel()
	crashed(t, stride(2, 30), func(l *life, at int) { l.crashAt, l.all = at, true })
}

// As above, but each disk has some of what was written and not synced.
func TestANodeLosesPowerAndHasSomeOfWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	crashed(t, stride(4, 40), func(l *life, at int) {
		seed := uint64(at) //nolint:gosec // a small number
		l.crashAt, l.torn = at, vfs.CrashCloneCfg{UnsyncedDataPercent: 10 + at%9*10, RNG: rand.New(rand.NewPCG(seed, 5))}
	})
}
