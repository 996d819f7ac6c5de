package match

import (
	"fmt"
	"math"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Times are microseconds: of a day for TM, since 1970-01-01 for days and DT.
const (
	second = int64(1e6)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// Open ends of a span.
const (
	minTime = math.MinInt64
	maxTime = math.MaxInt64
)

// zone is an offset from UTC (PS3.3 C.12.1.1.8).
type zone struct {
	known  bool
	offset int64 // microseconds east
}

// zoneOf returns the zone that (0008,0201) names.
func zoneOf(ds *dicom.Dataset) zone {
	if el := ds.Get(dict.TimezoneOffsetFromUTC); el != nil {
		if v := trim(el.Value, dict.SH); len(v) == 5 {
			if offset, ok := parseOffset(v); ok {
				return zone{true, offset}
			}
		}
	}
	return zone{}
}

// parseOffset reads ±HHMM in the range that DICOM allows, -1200 to +1400.
func parseOffset(b []byte) (int64, bool) {
	if len(b) != 5 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	h, ok1 := digits(b[1:3])
	m, ok2 := digits(b[3:5])
	offset := int64(h)*hour + int64(m)*minute
	if b[0] == '-' {
		offset = -offset
	}
	return offset, ok1 && ok2 && m < 60 && offset >= -12*hour && offset <= 14*hour
}

// digits reads a number of decimal digits, at least one.
func digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(b) > 0
}

// parseDA reads a date, YYYYMMDD or YYYY.MM.DD (PS3.5 §6.2, and ACR-NEMA's), and
// returns the start of that day.
func parseDA(b []byte) (int64, bool) {
	if len(b) == 10 && b[4] == '.' && b[7] == '.' {
		var plain [8]byte
		copy(plain[:4], b)
		copy(plain[4:6], b[5:])
		copy(plain[6:], b[8:])
		b = plain[:]
	}
	if len(b) != 8 {
		return 0, false
	}
	n, ok := digits(b)
	y, m, d := n/10000, n/100%100, n%100
	if !ok || m < 1 || m > 12 || d < 1 || d > daysIn(y, m) {
		return 0, false
	}
	return daysFrom(y, m, d) * day, true
}

// parseTM reads a time, HH[MM[SS[.F…]]] or HH:MM[:SS[.F…]], and returns the first
// and the last microsecond that it may mean.
func parseTM(b []byte) (lo, hi int64, ok bool) {
	var at int64
	for i, unit := range [...]int64{hour, minute, second} {
		if i > 0 && len(b) > 0 && b[0] == ':' {
			b = b[1:]
		} else if len(b) == 0 {
			return lo, hi, i > 0
		}
		if len(b) < 2 {
			return 0, 0, false
		}
		n, ok := digits(b[:2])
		if !ok || i == 0 && n > 23 || i == 1 && n > 59 || n > 60 {
			return 0, 0, false
		}
		if n == 60 {
			n = 59 // a leap second: no clock of ours has it
		}
		at += int64(n) * unit
		lo, hi = at, at+unit-1
		b = b[2:]
	}
	if len(b) == 0 {
		return lo, hi, true
	}
	if b[0] != '.' || len(b) < 2 || len(b) > 7 {
		return 0, 0, false
	}
	n, ok := digits(b[1:])
	unit := second
	for range b[1:] {
		unit /= 10
	}
	lo = at + int64(n)*unit
	return lo, lo + unit - 1, ok
}

// parseDT reads a date time, YYYY[MM[DD[HH[MM[SS[.F…]]]]]][±ZZXX], and returns the
// first and the last microsecond that it may mean in its own zone.
func parseDT(b []byte) (lo, hi int64, z zone, ok bool) {
	if n := len(b) - 5; n >= 4 && (b[n] == '+' || b[n] == '-') {
		if z.offset, z.known = parseOffset(b[n:]); !z.known {
			return 0, 0, z, false
		}
		b = b[:n]
	}
	if len(b) < 4 {
		return 0, 0, z, false
	}
	y, ok := digits(b[:4])
	if !ok {
		return 0, 0, z, false
	}
	month, dayOf := 0, 0
	if len(b) >= 6 {
		if month, ok = digits(b[4:6]); !ok || month < 1 || month > 12 {
			return 0, 0, z, false
		}
	}
	if len(b) >= 8 {
		if dayOf, ok = digits(b[6:8]); !ok || dayOf < 1 || dayOf > daysIn(y, month) {
			return 0, 0, z, false
		}
	}
	switch len(b) {
	case 4:
		return daysFrom(y, 1, 1) * day, daysFrom(y+1, 1, 1)*day - 1, z, true
	case 6:
		return daysFrom(y, month, 1) * day, daysFrom(y, month, daysIn(y, month))*day + day - 1, z, true
	case 5, 7:
		return 0, 0, z, false
	}
	start := daysFrom(y, month, dayOf) * day
	if len(b) == 8 {
		return start, start + day - 1, z, true
	}
	lo, hi, ok = parseTM(b[8:])
	return start + lo, start + hi, z, ok
}

func isLeap(y int) bool { return y%4 == 0 && (y%100 != 0 || y%400 == 0) }

func daysIn(y, m int) int {
	switch m {
	case 2:
		if isLeap(y) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysFrom returns the days from 1970-01-01 in the proleptic Gregorian calendar.
func daysFrom(y, m, d int) int64 {
	if m <= 2 {
		y--
		m += 12
	}
	y += 400 // years from 0000 on stay positive
	return int64(365*y+y/4-y/100+y/400+(153*(m-3)+2)/5+d-1) - 719468 - 146097
}

// dateOf is the inverse of daysFrom.
func dateOf(days int64) (y, m, d int) {
	z := int(days) + 719468 + 146097
	era := z / 146097
	doe := z % 146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	m = mp + 3
	if m > 12 {
		m -= 12
	}
	y = yoe + era*400 - 400
	if m <= 2 {
		y++
	}
	return y, m, d
}

func floorDay(t int64) int64 { return t - floorMod(t, day) }

func floorMod(t, n int64) int64 {
	if t %= n; t < 0 {
		t += n
	}
	return t
}

// formatDate returns YYYYMMDD.
func formatDate(t int64) string {
	y, m, d := dateOf(floorDay(t) / day)
	return fmt.Sprintf("%04d%02d%02d", y, m, d)
}

// formatTime returns HHMMSS.FFFFFF.
func formatTime(t int64) string {
	t = floorMod(t, day)
	return fmt.Sprintf("%02d%02d%02d.%06d", t/hour, t/minute%60, t/second%60, t%second)
}
