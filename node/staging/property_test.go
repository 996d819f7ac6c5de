package staging

import (
	"bytes"
	"strconv"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

// TestALogIsWhatWasCommittedAndNotReleased runs random histories with restarts
// against a map.
func TestALogIsWhatWasCommittedAndNotReleased(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		mem := vfs.NewMem()
		o := Options{
			FS: mem, Dir: "s",
			SegmentBytes: rapid.Int64Range(9<<10, 64<<10).Draw(r, "segment bytes"),
			gather:       rapid.IntRange(1, 2<<10).Draw(r, "gather"),
		}
		l, _ := openLog(t, o)
		live := map[int]Placed{}
		sizes := map[int]int{}
		next := 0
		pick := func(r *rapid.T) int {
			if len(live) == 0 {
				r.Skip("nothing is live")
			}
			k := rapid.IntRange(0, len(live)-1).Draw(r, "which")
			for i := range next {
				if _, ok := live[i]; ok {
					if k == 0 {
						return i
					}
					k--
				}
			}
			panic("unreachable")
		}
		r.Repeat(map[string]func(*rapid.T){
			"store": func(r *rapid.T) {
				size := rapid.IntRange(0, 20<<10).Draw(r, "size")
				sizes[next] = size
				live[next] = put(t, l, strconv.Itoa(next), payloadOf(next, size), rapid.IntRange(64, 5000).Draw(r, "piece"))
				next++
			},
			"abort": func(r *rapid.T) {
				a, err := l.Begin()
				if err != nil {
					r.Fatal(err)
				}
				if _, err := a.Write(payloadOf(1, rapid.IntRange(0, 9000).Draw(r, "size"))); err != nil {
					r.Fatal(err)
				}
				a.Abort()
			},
			"release": func(r *rapid.T) {
				i := pick(r)
				if err := l.Release(live[i]); err != nil {
					r.Fatal(err)
				}
				delete(live, i)
			},
			"read": func(r *rapid.T) {
				i := pick(r)
				if !bytes.Equal(read(t, l, live[i]), payloadOf(i, sizes[i])) {
					r.Fatalf("arrival %d differs", i)
				}
			},
			"restart": func(r *rapid.T) {
				closeLog(t, l)
				var got []stored
				l, got = openLog(t, o)
				last := -1
				found := 0
				for _, s := range got {
					i, _ := strconv.Atoi(s.record)
					if i <= last {
						r.Fatalf("arrival %d after %d: not in commit order", i, last)
					}
					last = i
					if _, ok := live[i]; ok {
						found++
						if !bytes.Equal(read(t, l, s.at), payloadOf(i, sizes[i])) {
							r.Fatalf("arrival %d differs after a restart", i)
						}
					} else if err := l.Release(s.at); err != nil {
						r.Fatal(err)
					}
				}
				if found != len(live) {
					r.Fatalf("%d of %d live arrivals replayed", found, len(live))
				}
			},
			"": func(r *rapid.T) {
				var want int64
				for i := range live {
					want += int64(sizes[i])
				}
				if _, got := l.Bytes(); got != want {
					r.Fatalf("live bytes %d, want %d", got, want)
				}
				if c := l.Corruptions(); len(c) != 0 {
					r.Fatalf("corruptions: %v", c)
				}
				if used := int64(len(live)+2) * (64<<10 + 30<<10); want == 0 {
					if total, _ := l.Bytes(); total > used {
						r.Fatalf("%d bytes in segments with nothing live", total)
					}
				}
			},
		})
		closeLog(t, l)
	})
}
