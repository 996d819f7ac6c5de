package gossip

import (
	"cmp"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"time"

	"pelago/cluster/fault"
)

const (
	metaVersion = 1
	metaLimit   = 512 // memberlist.MetaMaxSize
	maxSite     = 256 // bytes: 64 characters
	maxAddress  = 72  // bytes; a longer one is left out
	prefixBytes = 5   // of a node's id in a list of round trips: 8 characters
	rttBytes    = prefixBytes + 2
	maxRTT      = 65535 * rttUnit
	rttUnit     = 100 * time.Microsecond
)

// idText is how ids are written.
var idText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Meta is what a node says of itself. All of it is a hint.
type Meta struct {
	Site         string
	DICOM, Web   string // host:port where clients reach it, empty if they do not
	Load         uint16 // runnable work per mille of its processors
	Free         uint64 // bytes that may still be stored
	Capacity     uint64 // bytes, used and free
	AppliedIndex uint64 // of the catalogue
	// RTT is the round trip to other nodes by the first 8 characters of their id,
	// in units of 0.1 ms, at most 6.5 s. As many of the nearest are sent as find
	// room.
	RTT map[string]time.Duration
	// Reads is the newest version of the catalogue's entries that the node's program reads; 0: a
	// program that does not say.
	Reads uint32
	// Held are the bytes of shards that it holds, Lacking those that it owes and has
	// not; -1: not known, as of a program that does not tell.
	Held, Lacking int64
}

// Append encodes the metadata: at most 512 bytes.
func (m Meta) append(b []byte) []byte {
	start := len(b)
	b = append(b, metaVersion)
	b = appendText(b, m.Site, maxSite)
	b = appendText(b, m.DICOM, maxAddress)
	b = appendText(b, m.Web, maxAddress)
	b = binary.AppendUvarint(b, uint64(m.Load))
	b = binary.AppendUvarint(b, m.Free)
	b = binary.AppendUvarint(b, m.Capacity)
	b = binary.AppendUvarint(b, m.AppliedIndex)
	near := slices.SortedFunc(maps.Keys(m.RTT), func(x, y string) int {
		return cmp.Or(cmp.Compare(m.RTT[x], m.RTT[y]), cmp.Compare(x, y))
	})
	tail := binary.AppendUvarint(nil, uint64(m.Reads))
	tail = binary.AppendUvarint(binary.AppendUvarint(tail, uint64(max(m.Held, -1)+1)), uint64(max(m.Lacking, -1)+1))
	room := (metaLimit - 1 - (len(b) - start) - len(tail)) / rttBytes // a count below 128 is one byte
	var list []byte
	count := 0
	for _, node := range near {
		prefix, err := idText.DecodeString(node[:min(len(node), 8)])
		if err != nil || len(prefix) != prefixBytes {
			continue
		}
		if count == min(room, 127) {
			break
		}
		list = append(list, prefix...)
		list = binary.BigEndian.AppendUint16(list, uint16(min(m.RTT[node], maxRTT)/rttUnit))
		count++
	}
	return append(append(append(b, byte(count)), list...), tail...)
}

func appendText(b []byte, s string, limit int) []byte {
	if len(s) > limit {
		s = ""
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseMeta reads another node's metadata. Bytes behind the known fields belong to
// a newer version and are ignored; fault.Unsupported for one that this cannot
// read, fault.Invalid for garbage.
func parseMeta(b []byte) (Meta, error) {
	var m Meta
	if len(b) == 0 || len(b) > metaLimit {
		return m, fault.New(fault.Invalid, "gossip: metadata of %d bytes", len(b))
	}
	if b[0] != metaVersion {
		return m, fault.New(fault.Unsupported, "gossip: metadata of version %d", b[0])
	}
	r := reader{b: b[1:]}
	m.Site, m.DICOM, m.Web = r.text(maxSite), r.text(maxAddress), r.text(maxAddress)
	m.Load = uint16(min(r.number(), 1<<16-1))
	m.Free, m.Capacity, m.AppliedIndex = r.number(), r.number(), r.number()
	count := r.number()
	if r.bad || count > uint64(len(r.b)/rttBytes) {
		return Meta{}, fault.New(fault.Invalid, "gossip: metadata is cut short")
	}
	m.RTT = make(map[string]time.Duration, count)
	for range count {
		m.RTT[idText.EncodeToString(r.b[:prefixBytes])] = time.Duration(binary.BigEndian.Uint16(r.b[prefixBytes:])) * rttUnit
		r.b = r.b[rttBytes:]
	}
	m.Held, m.Lacking = -1, -1
	if len(r.b) == 0 {
		return m, nil // of an earlier program
	}
	reads, held, lacking := r.number(), r.number(), r.number()
	if r.bad || reads > math.MaxUint32 || held > math.MaxInt64 || lacking > math.MaxInt64 {
		return Meta{}, fault.New(fault.Invalid, "gossip: metadata is cut short")
	}
	m.Reads, m.Held, m.Lacking = uint32(reads), int64(held)-1, int64(lacking)-1
	return m, nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text(limit int) string {
	n := r.number()
	if r.bad || n > uint64(min(limit, len(r.b))) {
		r.bad = true
		return ""
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s
}
