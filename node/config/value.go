package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
)

// Duration is a time.Duration written as 30s, 10m, 12h or 30d.
type Duration time.Duration

// UnmarshalText reads it; d is 24 hours.
func (d *Duration) UnmarshalText(b []byte) error {
	s := string(b)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return fault.New(fault.Invalid, "%q is no duration", s)
		}
		*d = Duration(time.Duration(n) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fault.New(fault.Invalid, "%q is no duration (30s, 10m, 12h, 30d)", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) {
	const day = 24 * time.Hour
	if v := time.Duration(d); v >= day && v%day == 0 {
		return fmt.Appendf(nil, "%dd", v/day), nil
	}
	return []byte(time.Duration(d).String()), nil
}

// Bytes is a size, written plain or with KiB, MiB, GiB or TiB.
type Bytes int64

var units = []struct {
	suffix string
	shift  uint
}{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"", 0}}

// UnmarshalText reads it.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64>>u.shift {
			return fault.New(fault.Invalid, "%q is no size (512MiB, 8GiB)", s)
		}
		*b = Bytes(n << u.shift)
		return nil
	}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (b Bytes) MarshalText() ([]byte, error) {
	for _, u := range units {
		if b != 0 && int64(b)%(1<<u.shift) == 0 {
			return fmt.Appendf(nil, "%d%s", int64(b)>>u.shift, u.suffix), nil
		}
	}
	return []byte("0"), nil
}
