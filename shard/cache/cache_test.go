package cache

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// limits are a cache in the heap and one of the system's memory.
var limits = map[string]int64{"heap": 4 << 20, "mapped": mappedFrom}

// pattern fills a value with what tells it from every other.
func pattern(key, size int) func([]byte) error {
	return func(value []byte) error {
		for i := 0; i+8 <= size; i += 8 {
			binary.LittleEndian.PutUint64(value[i:], uint64(key)<<20|uint64(i))
		}
		clear(value[size&^7:])
		return nil
	}
}

func check(t *testing.T, key, size int) func([]byte) error {
	return func(value []byte) error {
		if len(value) != size || cap(value) != size {
			t.Errorf("value %d has %d bytes, room for %d, want %d", key, len(value), cap(value), size)
		}
		for i := 0; i+8 <= size; i += 8 {
			if got := binary.LittleEndian.Uint64(value[i:]); got != uint64(key)<<20|uint64(i) {
				t.Errorf("value %d holds %x at %d", key, got, i)
				return nil
			}
		}
		return nil
	}
}

func nothing([]byte) error { return nil }

func TestValuesStayWhileTheyFit(t *testing.T) {
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			c := New[int](limit)
			defer c.Close()
			fills := 0
			for range 3 {
				for key, size := range []int{1, 511, 4096, 70_000, 1 << 20, smallBytes} {
					err := c.View(key, size, func(v []byte) error { fills++; return pattern(key, size)(v) }, check(t, key, size))
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if fills != 6 {
				t.Errorf("6 values were filled %d times", fills)
			}
		})
	}
}

// What is kept is within the limit, whatever sizes come, and sizes that have gone
// out of use make room for those that are in use.
func TestMemoryIsWithinTheLimit(t *testing.T) {
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			c := New[int](limit)
			defer c.Close()
			r := rand.New(rand.NewPCG(1, 2))
			for key := range 600 {
				size := 1 + r.IntN(1<<20)
				if key < 200 {
					size = 200_000
				}
				if err := c.View(key, size, nothing, nothing); err != nil {
					t.Fatal(err)
				}
				if got := c.bytes(); got > limit {
					t.Fatalf("%d bytes are taken of %d", got, limit)
				}
			}
			if got := c.bytes(); got < limit/2 {
				t.Errorf("only %d bytes are taken of %d", got, limit)
			}
			c.Close()
			if got := c.bytes(); got != 0 {
				t.Errorf("%d bytes are left", got)
			}
		})
	}
}

// Who reads a quarter more than fits from end to end, again and again, finds half
// of it here: the expected part h of such a loop obeys h = exp(-(1-h)·1.25), 0.63.
func TestAStudyLargerThanTheCacheIsFoundInPart(t *testing.T) {
	const values, size = 500, 4 << 10
	c := New[int](400 * size)
	fills := 0
	for round := range 12 {
		if round == 4 { // by then the first round is forgotten
			fills = 0
		}
		for key := range values {
			_ = c.View(key, size, func([]byte) error { fills++; return nil }, nothing)
		}
	}
	if found := 1 - float64(fills)/(8*values); found < 0.5 {
		t.Errorf("%.2f were found", found)
	}
}

// A study that fits and is read again is found, although the cache was full of
// what was read once before it: nearly all of it from the third time on. With
// chance alone a quarter of all looks were in vain.
func TestWhatIsNotReadAnyMoreMakesRoom(t *testing.T) {
	const values, size = 360, 4 << 10
	c := New[int](400 * size)
	for key := range 2000 {
		_ = c.View(values+key, size, nothing, nothing)
	}
	fills := 0
	for range 6 {
		for key := range values {
			_ = c.View(key, size, func([]byte) error { fills++; return nil }, nothing)
		}
	}
	if found := 1 - float64(fills-values)/(5*values); found < 0.8 {
		t.Errorf("%.2f were found", found)
	}
}

func TestThoseWhoAskMeanwhileWaitForOneFill(t *testing.T) {
	for _, fault := range []error{nil, errors.New("no such value")} {
		synctest.Test(t, func(t *testing.T) {
			c := New[int](1 << 20)
			begin := make(chan struct{})
			var fills, looks atomic.Int64
			for range 8 {
				go func() {
					err := c.View(7, 100, func(v []byte) error {
						fills.Add(1)
						<-begin
						return errors.Join(fault, pattern(7, 100)(v))
					}, check(t, 7, 100))
					if !errors.Is(err, fault) {
						t.Errorf("error %v, want %v", err, fault)
					}
					looks.Add(1)
				}()
			}
			synctest.Wait()
			close(begin)
			synctest.Wait()
			if fills.Load() != 1 || looks.Load() != 8 {
				t.Errorf("%d fills, %d of 8 came back", fills.Load(), looks.Load())
			}
			err := c.View(7, 100, func(v []byte) error { fills.Add(1); return pattern(7, 100)(v) }, check(t, 7, 100))
			if want := map[bool]int64{true: 1, false: 2}[fault == nil]; err != nil || fills.Load() != want {
				t.Errorf("afterwards %v, %d fills, want %d: an error must not be kept, a value must", err, fills.Load(), want)
			}
		})
	}
}

func TestAPanicWhileFillingLeavesNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New[int](1 << 20)
		begin := make(chan struct{})
		go func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = c.View(1, 100, func([]byte) error { <-begin; panic("broken") }, nothing)
		}()
		synctest.Wait()
		waited := make(chan error, 1)
		go func() {
			waited <- c.View(1, 100, nothing, func([]byte) error { t.Error("half a value was shown"); return nil })
		}()
		synctest.Wait()
		close(begin)
		if err := <-waited; !errors.Is(err, errFill) {
			t.Errorf("who waited got %v", err)
		}
	})
}

// Values that are looked at keep their bytes while others push them out, and while
// the cache closes under them; then everything is given back.
func TestWhatIsLookedAtStaysWhole(t *testing.T) {
	for name, limit := range limits {
		t.Run(name, func(t *testing.T) {
			c := New[int](limit)
			sizes := []int{1000, 66_000, 500_000, 1 << 20}
			var wait sync.WaitGroup
			for g := range 8 {
				wait.Go(func() {
					r := rand.New(rand.NewPCG(3, uint64(g)))
					for range 150 {
						key := r.IntN(60)
						size := sizes[key%len(sizes)]
						err := c.View(key, size, pattern(key, size), func(v []byte) error {
							_ = check(t, key, size)(v)
							inner := r.IntN(60)
							size := sizes[inner%len(sizes)]
							if inner == key {
								return nil
							}
							return c.View(100+inner, size, pattern(100+inner, size), check(t, 100+inner, size))
						})
						if err != nil {
							t.Error(err)
						}
					}
					if g == 0 {
						c.Close()
					}
				})
			}
			wait.Wait()
			if got := c.bytes(); got != 0 {
				t.Errorf("%d bytes are left after Close", got)
			}
		})
	}
}

var errSeen = errors.New("seen")

func TestACacheOfNothingKeepsNothing(t *testing.T) {
	c := New[string](0)
	for range 2 {
		filled := false
		err := c.View("a", 10, func(v []byte) error { filled = true; copy(v, "0123456789"); return nil }, func(v []byte) error {
			if !bytes.Equal(v, []byte("0123456789")) {
				t.Errorf("value %q", v)
			}
			return errSeen
		})
		if !errors.Is(err, errSeen) || !filled || c.bytes() != 0 {
			t.Errorf("%v, filled %t, %d bytes", err, filled, c.bytes())
		}
	}
}

func TestRoundedSizesWasteAtMostAQuarter(t *testing.T) {
	last := 0
	for size := 1; size <= 1<<20; size += 1 + size/97 {
		n := rounded(size)
		if n < size || n < last || size > minBytes && (n-size)*4 > size {
			t.Fatalf("%d bytes take %d (after %d)", size, n, last)
		}
		last = n
	}
	for _, size := range []int{64 << 10, 512 << 10, 1 << 20} {
		if rounded(size) != size {
			t.Errorf("%d bytes take %d", size, rounded(size))
		}
	}
}

func BenchmarkFound(b *testing.B) {
	c := New[int](mappedFrom)
	defer c.Close()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			_ = c.View(1, 1<<19, nothing, nothing)
		}
	})
}
