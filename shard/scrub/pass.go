package scrub

import (
	"encoding/binary"
	"time"
)

// nextPercent of the period is when the next pass begins at the earliest.
const nextPercent = 75

// Pass is how far a pass over all that there is to read is.
type Pass struct {
	Began    time.Time // this pass; whole seconds. Zero: none is under way
	Finished time.Time // when the last whole one began
	Read     int64     // bytes, in this pass, of what is done
}

// Due reports whether the next pass is to begin, if none is under way.
func (p Pass) Due(period time.Duration) bool {
	return p.Finished.IsZero() || time.Since(p.Finished) >= period/100*nextPercent
}

// Begin is the next pass, from now on.
func (p Pass) Begin() Pass { return Pass{Began: time.Now(), Finished: p.Finished} }

// End is what is left of a pass that is over: the next one is due by when it began.
func (p Pass) End() Pass { return Pass{Finished: p.Began} }

// TimesBytes is how long what [Pass.AppendTimes] appends is.
const TimesBytes = 8 + 8

// AppendTimes appends when this pass and the last one began, in whole seconds.
func (p Pass) AppendTimes(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(seconds(p.Began)))
	return binary.BigEndian.AppendUint64(b, uint64(seconds(p.Finished)))
}

// ParseTimes reads what [Pass.AppendTimes] wrote, of TimesBytes at the least.
func ParseTimes(b []byte) (began, finished time.Time) { return fromSeconds(b), fromSeconds(b[8:]) }

// seconds is a time; 0 for none.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromSeconds(b []byte) time.Time {
	if s := int64(binary.BigEndian.Uint64(b)); s != 0 {
		return time.Unix(s, 0)
	}
	return time.Time{}
}
