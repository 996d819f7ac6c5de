package world

import (
	"math"
	"strconv"
	"time"

	"pelago/cluster/fault"
)

// Site names a place: what fails together.
type Site string

// Rate is bits per second of payload. Headers are not counted: on Ethernet
// 1,460 bytes of payload take the time of 1,538, so that a link of 1 Gb/s
// carries 949 Mb/s of what is meant here.
type Rate int64

// Rates that links are sold by.
const (
	Kbps Rate = 1e3
	Mbps Rate = 1e6
	Gbps Rate = 1e9
)

// Time returns how long n bytes take.
func (r Rate) Time(n int64) time.Duration {
	return time.Duration(math.Round(float64(n) * 8e9 / float64(r)))
}

// Bytes returns how many bytes pass in d.
func (r Rate) Bytes(d time.Duration) int64 {
	return int64(float64(d) * float64(r) / 8e9)
}

// Cut says whether a direction carries anything.
type Cut uint8

// The ways in which a direction may be cut.
const (
	// Open carries.
	Open Cut = iota
	// BlackHole loses everything without a word: connections hang, and new ones
	// are not answered. What hangs goes on after healing, at the sender's next
	// retransmission, unless its application has given up.
	BlackHole
	// Refuse answers everything with a reset, as a firewall that rejects, or a
	// host without the service, does: established connections end at once at
	// both ends.
	Refuse
)

var cutNames = [...]string{"open", "black hole", "refuse"}

// String returns the cut in words.
func (c Cut) String() string {
	if int(c) < len(cutNames) {
		return cutNames[c]
	}
	return "cut " + strconv.Itoa(int(c))
}

// What is taken where a link does not say.
const (
	// defaultWindow is what a connection may have unacknowledged: enough for
	// 1 Gb/s at 130 ms.
	defaultWindow = 16 << 20
	// defaultQueue is how long the default queue of a bottleneck is.
	defaultQueue = 25 * time.Millisecond
	minRTO       = 200 * time.Millisecond // of Linux
	maxRTO       = 2 * time.Minute        // RFC 6298 asks for at least a minute; that of Linux
	synRTO       = time.Second            // RFC 6298 §2.1
	synTries     = 7                      // tcp_syn_retries of Linux, and the first
	packet       = 1460                   // bytes of payload of a full packet on Ethernet
	// initialWindow is 10 packets (RFC 6928).
	initialWindow = 10 * packet
)

// Link is what one direction between two sites is like. The zero Link carries
// everything at once.
type Link struct {
	// Delay is the propagation, one way. A round trip is the sum of both directions'.
	Delay time.Duration
	// Jitter is the most that is added to Delay, evenly distributed. It never
	// turns the order of a connection's bytes.
	Jitter time.Duration
	// Rate is what all connections of this direction share; 0: no limit.
	Rate Rate
	// Queue is how many bytes may wait for the bottleneck before senders are
	// held up; 0: 25 ms of Rate. It is at least two segments of a millisecond.
	Queue int64
	// Loss is the probability that a packet of 1,460 bytes is lost: its
	// connection then stands still in this direction for RTO.
	Loss float64
	// RTO is the retransmission timeout; 0: 200 ms and a round trip.
	// It doubles with each attempt that fails, up to RTOMax; 0: 2 min.
	RTO, RTOMax time.Duration
	// Window is how many bytes of one connection may be unacknowledged; 0: 16 MiB.
	Window int64
	// SlowStart makes each connection begin with 10 packets a round trip, and
	// again after a loss or when it was idle for RTO, as TCP Reno would.
	// Without it a connection has its whole Window from the first byte.
	SlowStart bool
	// Cut says whether anything passes.
	Cut Cut
}

// check refuses what no link is.
func (l *Link) check() error {
	switch {
	case l.Delay < 0, l.Jitter < 0, l.RTO < 0, l.RTOMax < 0:
		return fault.New(fault.Invalid, "a link's times are not negative")
	case l.Rate < 0, l.Queue < 0, l.Window < 0:
		return fault.New(fault.Invalid, "a link's rate, queue and window are not negative")
	case !(l.Loss >= 0 && l.Loss < 1): // NaN too
		return fault.New(fault.Invalid, "a link's loss %g is not in [0, 1)", l.Loss)
	case int(l.Cut) >= len(cutNames):
		return fault.New(fault.Invalid, "%s", l.Cut)
	}
	return nil
}

// window returns how many bytes of a connection may be unacknowledged.
func (l *Link) window() int64 {
	if l.Window == 0 {
		return defaultWindow
	}
	return l.Window
}

// rto returns the first retransmission timeout and the longest, of a direction
// whose answers come back over another.
func (l *Link) rto(back Link) (first, most time.Duration) {
	first, most = l.RTO, l.RTOMax
	if first == 0 {
		first = minRTO + l.Delay + l.Jitter + back.Delay + back.Jitter
	}
	if most == 0 {
		most = maxRTO
	}
	return first, max(first, most)
}

// Access is how a site is connected: what all its links to others share.
// The zero Access is no limit.
type Access struct {
	Up, Down Rate
}

// check refuses what no access is.
func (a *Access) check() error {
	if a.Up < 0 || a.Down < 0 {
		return fault.New(fault.Invalid, "an access's rates are not negative")
	}
	return nil
}

// Both returns the link with half the round trip as its delay: what to set for
// both directions.
func Both(roundTrip time.Duration, rate Rate) Link {
	return Link{Delay: roundTrip / 2, Rate: rate}
}
