package catalog

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
)

// OrderBytes is the length of an [Order].
const OrderBytes = 10

// Order is a study's place in every answer, comparable bytewise: inverted study
// date (3 bytes, days), inverted study time (3 bytes, 1/128 s), dense study
// number (4 bytes). Newest first; studies without a time follow those of the
// same day that have one, those without a date come last.
type Order [OrderBytes]byte

// Days of Order that are no dates.
const (
	dayAbsent  = 0 // no study date
	dayUnclear = 1 // one that is not a single valid date
	dayFirst   = 2
)

// ticksPerSecond is the resolution of an order's time.
const ticksPerSecond = 128

// orderOf returns the place of a study by its stored date and time.
func orderOf(date, clock string, number uint32) Order {
	return makeOrder(dayOf(date), tickOf(clock), number)
}

func makeOrder(day, tick, number uint32) Order {
	var o Order
	put24(o[0:], math.MaxUint32-day)
	put24(o[3:], math.MaxUint32-tick)
	binary.BigEndian.PutUint32(o[6:], number)
	return o
}

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v>>16), byte(v>>8), byte(v) }

// Number returns the dense study number.
func (o Order) Number() uint32 { return binary.BigEndian.Uint32(o[6:]) }

// Next returns the least order above o; of the highest, itself.
func (o Order) Next() Order {
	for i := OrderBytes - 1; i >= 0; i-- {
		if o[i]++; o[i] != 0 {
			return o
		}
	}
	return LastOrder()
}

// LastOrder is above every study's order.
func LastOrder() Order {
	var o Order
	for i := range o {
		o[i] = 0xFF
	}
	return o
}

// Span is a run of orders, both ends included.
type Span struct{ First, Last Order }

// Spans returns where studies stand whose date may lie in low..high (YYYYMMDD,
// inclusive, "" = open): the days asked for, and the few studies whose date is
// not a single valid one.
func Spans(low, high string) []Span {
	from, to := uint32(dayFirst), uint32(1<<24-1)
	if low != "" {
		if from = dayOf(low); from < dayFirst {
			return []Span{{Order{}, LastOrder()}} // not a date we can order by: no narrowing
		}
	}
	if high != "" {
		if to = dayOf(high); to < dayFirst {
			return []Span{{Order{}, LastOrder()}}
		}
	}
	unclear := Span{makeOrder(dayUnclear, 1<<24-1, 0), makeOrder(dayUnclear, 0, math.MaxUint32)}
	if from > to {
		return []Span{unclear}
	}
	return []Span{{makeOrder(to, 1<<24-1, 0), makeOrder(from, 0, math.MaxUint32)}, unclear}
}

// dayOf returns the number of a DA value's day since 1582-10-15, from dayFirst
// on. YYYY.MM.DD of ACR-NEMA is read too.
func dayOf(date string) uint32 {
	date = strings.Trim(date, " \x00")
	if date == "" {
		return dayAbsent
	}
	if len(date) == 10 && date[4] == '.' && date[7] == '.' {
		date = date[:4] + date[5:7] + date[8:]
	}
	if len(date) != 8 {
		return dayUnclear
	}
	y, ok1 := digits(date[:4])
	m, ok2 := digits(date[4:6])
	d, ok3 := digits(date[6:])
	if !ok1 || !ok2 || !ok3 || m < 1 || m > 12 || d < 1 || d > 31 {
		return dayUnclear
	}
	day := time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC)
	if day.Day() != d {
		return dayUnclear
	}
	first := time.Date(1582, 10, 15, 0, 0, 0, 0, time.UTC)
	if day.Before(first) {
		return dayUnclear
	}
	return dayFirst + uint32((day.Unix()-first.Unix())/86400)
}

// tickOf returns the ticks of a TM value since midnight, from 1 on; 0 for none.
func tickOf(clock string) uint32 {
	clock = strings.ReplaceAll(strings.Trim(clock, " \x00"), ":", "")
	var parts [3]int
	for i, limit := range [...]int{24, 60, 61} {
		if len(clock) < 2 {
			if i == 0 {
				return 0
			}
			break
		}
		v, ok := digits(clock[:2])
		if !ok || v >= limit {
			return 0
		}
		parts[i], clock = v, clock[2:]
	}
	tick := uint32(parts[0]*3600+parts[1]*60+parts[2]) * ticksPerSecond
	if len(clock) > 1 && clock[0] == '.' {
		fraction, scale := 0, 1
		for _, c := range clock[1:min(len(clock), 7)] {
			if c < '0' || c > '9' {
				break
			}
			fraction, scale = fraction*10+int(c-'0'), scale*10
		}
		tick += uint32(fraction * ticksPerSecond / scale)
	}
	return tick + 1
}

func digits(s string) (int, bool) {
	v := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}
