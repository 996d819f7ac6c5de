package world

import "time"

// ackGrain is how close acknowledgements are counted as one, as delayed
// acknowledgements do. It bounds how many are on their way.
const ackGrain = time.Millisecond

// window is how much one connection may send in one direction before it hears
// that some arrived. It is pure: callers say what time it is.
type window struct {
	flight     int64 // bytes sent and not acknowledged
	congestion int64 // what slow start allows
	threshold  int64 // where slow start ends; 0: nowhere
	acks       []ack // on their way back, in order of time
	last       time.Time
}

type ack struct {
	at time.Time
	n  int64
}

// settle takes the acknowledgements that have come back by now.
func (w *window) settle(now time.Time, l Link) {
	i := 0
	for ; i < len(w.acks) && !w.acks[i].at.After(now); i++ {
		if w.flight*2 >= w.congestion { // else it was the application that held back
			w.grow(w.acks[i].n, l)
		}
		w.flight -= w.acks[i].n
	}
	w.acks = w.acks[:copy(w.acks, w.acks[i:])]
}

// grow widens the window as Reno does (RFC 5681 §3.1).
func (w *window) grow(n int64, l Link) {
	if w.threshold == 0 || w.congestion < w.threshold {
		w.congestion += n
	} else {
		w.congestion += max(1, packet*n/w.congestion)
	}
	w.congestion = min(w.congestion, l.window())
}

// room says how many bytes may be sent, and when the next acknowledgement comes
// back, if one is on its way.
func (w *window) room(l Link) (bytes int64, next time.Time) {
	most := l.window()
	if l.SlowStart {
		most = min(most, max(w.congestion, initialWindow))
	}
	if len(w.acks) > 0 {
		next = w.acks[0].at
	}
	return max(0, most-w.flight), next
}

// sent notes n bytes that left. rto is how long a connection may be idle before
// it begins anew (RFC 5681 §4.1).
func (w *window) sent(now time.Time, n int64, rto time.Duration) {
	if w.congestion == 0 || w.flight == 0 && now.Sub(w.last) > rto {
		w.congestion = initialWindow
	}
	w.flight += n
	w.last = now
}

// lost notes a retransmission timeout (RFC 5681 §3.1, §5).
func (w *window) lost() {
	w.threshold = max(w.flight/2, 2*packet)
	w.congestion = initialWindow
}

// acknowledge notes that n bytes were taken by the receiver, which the sender
// hears at the time given.
func (w *window) acknowledge(at time.Time, n int64) {
	if k := len(w.acks); k > 0 {
		last := &w.acks[k-1]
		if at.Sub(last.at) < ackGrain { // also when the way back became shorter
			last.n += n
			return
		}
	}
	w.acks = append(w.acks, ack{at: at, n: n})
}
