package match

import (
	"bytes"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// span is a range of time, both ends included.
type span struct {
	lo, hi int64
	zone   zone // DT: of the key
	wraps  bool // TM: from lo over midnight to hi
}

func (s *span) holds(t int64) bool {
	if s.wraps {
		return t >= s.lo || t <= s.hi
	}
	return s.lo <= t && t <= s.hi
}

// dateTest matches DA; time is the TM attribute that a shift of zone needs, or 0.
type dateTest struct {
	spans []span
	time  dict.Tag
}

// timeTest matches TM.
type timeTest struct {
	spans []span
	zoned bool // one of a pair of date and time: moves with the zone
}

// momentTest matches DT.
type momentTest struct{ spans []span }

// combinedTest matches a date and its time as one.
type combinedTest struct {
	span span
	time dict.Tag
}

// compileTimes compiles DA, TM and DT: single values, and ranges a-b, a-, -b.
func compileTimes(r *rule, values []string) error {
	var spans []span
	single := false
	for _, v := range values {
		s, one, err := parseSpan([]byte(v), r.key.VR)
		if err != nil {
			return fault.New(fault.Mismatch, "match: key %v is not a %v or a range of it", r.key.Tag, r.key.VR)
		}
		single = one
		spans = append(spans, s)
	}
	partner, paired := partnerOf(r.key.Tag)
	switch r.key.VR {
	case dict.DA:
		r.test = &dateTest{spans, partner}
	case dict.TM:
		r.test = &timeTest{spans, paired}
	default:
		r.test = &momentTest{spans}
	}
	r.key.Kind = Range
	if len(spans) > 1 || spans[0].wraps || r.key.VR == dict.DT && spans[0].zone.known {
		r.key.Kind = Mixed
		return nil
	}
	s := spans[0]
	r.key.Low, r.key.High = formatBound(s.lo, r.key.VR), formatBound(s.hi, r.key.VR)
	if single && r.key.Low == r.key.High {
		r.key.Kind, r.key.Values = Single, []string{r.key.Low}
	}
	return nil
}

// formatBound returns a bound as Key has it.
func formatBound(t int64, vr dict.VR) string {
	switch {
	case t == minTime || t == maxTime:
		return ""
	case vr == dict.DA:
		return formatDate(t)
	case vr == dict.TM:
		return formatTime(t)
	}
	return formatDate(t) + formatTime(t)
}

var errSpan = fault.New(fault.Mismatch, "match: no span")

// parseSpan reads one value or range; one tells that it was a value.
func parseSpan(v []byte, vr dict.VR) (s span, one bool, err error) {
	at := hyphen(v, vr)
	if at < 0 {
		lo, hi, z, ok := parsePoint(v, vr)
		if !ok {
			return s, true, errSpan
		}
		return span{lo: lo, hi: hi, zone: z}, true, nil
	}
	s = span{lo: minTime, hi: maxTime}
	low, high := bytes.Trim(v[:at], " "), bytes.Trim(v[at+1:], " ")
	if len(low) > 0 {
		lo, _, z, ok := parsePoint(low, vr)
		if !ok {
			return s, false, errSpan
		}
		s.lo, s.zone = shiftToUTC(lo, z), z
	}
	if len(high) > 0 {
		_, hi, z, ok := parsePoint(high, vr)
		if !ok || len(low) > 0 && z.known != s.zone.known {
			return s, false, errSpan
		}
		s.hi = shiftToUTC(hi, z)
		if !s.zone.known {
			s.zone = z
		}
	}
	if s.zone.known { // bounds in UTC from here on
		s.zone.offset = 0
	}
	s.wraps = vr == dict.TM && len(low) > 0 && len(high) > 0 && s.lo > s.hi
	return s, false, nil
}

func shiftToUTC(t int64, z zone) int64 { return t - z.offset }

// hyphen returns where a range is divided, or -1. In DT a hyphen may begin an
// offset instead: one that four digits of at most 1200 follow, and then the end
// or the dividing hyphen (PS3.5 §6.2, DT).
func hyphen(v []byte, vr dict.VR) int {
	for i, c := range v {
		if c != '-' {
			continue
		}
		if vr == dict.DT && i >= 4 && i+5 <= len(v) && (i+5 == len(v) || v[i+5] == '-' || v[i+5] == ' ') {
			if _, ok := parseOffset(v[i : i+5]); ok {
				continue
			}
		}
		return i
	}
	return -1
}

// parsePoint returns the first and last microsecond of one value; for DA those
// of its day's start.
func parsePoint(v []byte, vr dict.VR) (lo, hi int64, z zone, ok bool) {
	switch vr {
	case dict.DA:
		lo, ok = parseDA(v)
		return lo, lo, z, ok
	case dict.TM:
		lo, hi, ok = parseTM(v)
		return lo, hi, z, ok
	}
	return parseDT(v)
}

func holdsAny(spans []span, t int64) bool {
	for i := range spans {
		if spans[i].holds(t) {
			return true
		}
	}
	return false
}

func (t *dateTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(el.Value, dict.DA, func(v []byte) bool {
		at, ok := parseDA(v)
		if !ok {
			return false
		}
		if c.shift != 0 && t.time != 0 {
			if of, ok := timeIn(c.ds, t.time); ok {
				at = floorDay(at + of + c.shift)
			}
		}
		return holdsAny(t.spans, at)
	})
}

func (t *timeTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(el.Value, dict.TM, func(v []byte) bool {
		at, _, ok := parseTM(v)
		if !ok {
			return false
		}
		if t.zoned {
			at = floorMod(at+c.shift, day)
		}
		return holdsAny(t.spans, at)
	})
}

func (t *momentTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(el.Value, dict.DT, func(v []byte) bool {
		at, _, z, ok := parseDT(v)
		if !ok {
			return false
		}
		if !z.known {
			z = c.zoned
		}
		for i := range t.spans {
			s := t.spans[i]
			if !s.zone.known && c.keys.known {
				s.zone = c.keys
			}
			when := at
			if z.known && s.zone.known {
				when = at - z.offset + s.zone.offset
			}
			if s.holds(when) {
				return true
			}
		}
		return false
	})
}

func (t *combinedTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(el.Value, dict.DA, func(v []byte) bool {
		at, ok := parseDA(v)
		if !ok {
			return false
		}
		of, ok := timeIn(c.ds, t.time)
		if !ok { // of unknown time: some moment of that day may be meant
			return at <= t.span.hi && at+day-1 >= t.span.lo
		}
		return t.span.holds(at + of + c.shift)
	})
}

// timeIn returns the start of a data set's TM value.
func timeIn(ds *dicom.Dataset, tag dict.Tag) (int64, bool) {
	el := ds.Get(tag)
	if el == nil {
		return 0, false
	}
	v := el.Value
	if i := bytes.IndexByte(v, '\\'); i >= 0 {
		v = v[:i]
	}
	at, _, ok := parseTM(trim(v, dict.TM))
	return at, ok
}

// combine joins the rules of each date and its time, where both are asked for
// and neither is a list.
func combine(rules []rule) []rule {
	joined := rules[:0]
	drop := map[dict.Tag]bool{}
	for i := range rules {
		r := rules[i]
		d, ok := r.test.(*dateTest)
		if ok && len(d.spans) == 1 && d.time != 0 {
			if t := timeRule(rules, d.time); t != nil {
				s := joinSpans(d.spans[0], t.spans[0])
				r.test = &combinedTest{s, d.time}
				r.key.Kind, r.key.Values = Range, nil
				r.key.Low, r.key.High = formatBound(s.lo, dict.DT), formatBound(s.hi, dict.DT)
				drop[d.time] = true
			}
		}
		if !drop[r.key.Tag] {
			joined = append(joined, r)
		}
	}
	return joined
}

func timeRule(rules []rule, tag dict.Tag) *timeTest {
	for i := range rules {
		if t, ok := rules[i].test.(*timeTest); ok && rules[i].key.Tag == tag && len(t.spans) == 1 && !t.spans[0].wraps {
			return t
		}
	}
	return nil
}

// joinSpans makes one span from the first time of the first day to the last
// time of the last day.
func joinSpans(date, time span) span {
	s := span{lo: minTime, hi: maxTime}
	if date.lo != minTime {
		s.lo = date.lo + max(time.lo, 0)
	}
	if date.hi != maxTime {
		s.hi = date.hi + min(time.hi, day-1)
	}
	return s
}

// widen makes the keys of dates and times tell what they do before a
// candidate's zone is known: zones differ by up to 26 hours.
func widen(rules []rule) {
	for i := range rules {
		k := &rules[i].key
		switch t := rules[i].test.(type) {
		case *dateTest:
			if t.time == 0 || len(t.spans) != 1 {
				continue
			}
			k.Kind, k.Values = Range, nil
			k.Low, k.High = widened(t.spans[0], dict.DA)
		case *combinedTest:
			k.Low, k.High = widened(t.span, dict.DT)
		case *timeTest:
			if t.zoned {
				k.Kind, k.Values, k.Low, k.High = Mixed, nil, "", ""
			}
		case *momentTest:
			k.Kind, k.Values, k.Low, k.High = Mixed, nil, "", ""
		}
	}
}

func widened(s span, vr dict.VR) (low, high string) {
	if s.lo != minTime {
		low = formatBound(s.lo-2*day, vr)
	}
	if s.hi != maxTime {
		high = formatBound(s.hi+2*day, vr)
	}
	return low, high
}
