package archive

import (
	"bytes"
	"encoding/binary"

	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
)

// The archive's rows in store/ (docs/formats.md, "store"). The journal owns
// "j/"; no prefix here begins with that letter.
const (
	rowInstance  = 'i' // i number            → archivepb.Instance
	rowHeader    = 'h' // h number            → header record, whole or by reference (headers.go)
	rowLocation  = 'l' // l number            → archivepb.Location
	rowSeries    = 's' // s study series sop  → listing, below; canonical instances only
	rowUID       = 'u' // u sop number        → archivepb.State, one byte, and the hash's first 16
	rowParent    = 'v' // v series study      → nothing
	rowQueue     = 'q' // q study series number → size and arrival (queue.go): still to be packed
	rowPack      = 'p' // p pack id           → archivepb.Pack
	rowLost      = 'o' // o study series pack id → nothing: the pack is lost
	rowMember    = 'm' // m pack id number    → nothing: an instance whose bytes the pack holds
	rowEmpty     = 'y' // y pack id           → nothing: an instance has left it, see whether it is empty
	rowReview    = 'x' // x number            → nothing: quarantined, an operator decides
	rowDiscard   = 'w' // w number            → nothing: discarded, goes once the delete grace has passed
	rowDropped   = 'd' // d number            → nothing: dropped; its record stays while staging may replay it
	rowForget    = 'f' // f study             → nothing: purged, its keys go once nothing of it is left
	rowAgain     = 'a' // a study series      → nothing: its fact must be made anew
	rowReference = 'r' // r number number    → nothing: the header row of the second refers to that of the first
	rowKept      = 'e' // e number            → nothing: dropped; its header row stays while others refer to it
	rowClock     = 't' // t                   → Unix microseconds: the wall clock at the last look for what is past its grace
	rowGone      = 'g' // g pack id           → nothing: the pack is evicted, and its blob to be deleted
	rowTable     = 'b' // b table number      → nothing: about to be ingested into bulk/, no row names its packs yet
)

// UIDs hold printable characters only (checked on the way in), so a zero byte
// ends one and keeps the order of prefixes.
func appendUID(key []byte, uid string) []byte { return append(append(key, uid...), 0) }

func keyNumber(row byte, number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{row}, number)
}

func keyReference(to, from uint64) []byte {
	return binary.BigEndian.AppendUint64(keyNumber(rowReference, to), from)
}

func keySeries(study, series, sop string) []byte {
	key := make([]byte, 0, 4+len(study)+len(series)+len(sop))
	key = appendUID(append(key, rowSeries), study)
	if series == "" {
		return key
	}
	key = appendUID(key, series)
	if sop == "" {
		return key
	}
	return appendUID(key, sop)
}

func keyUID(sop string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(prefixUID(sop), number)
}

func prefixUID(sop string) []byte { return appendUID([]byte{rowUID}, sop) }

func keyParent(series, study string) []byte {
	return appendUID(appendUID([]byte{rowParent}, series), study)
}

func keyQueue(study, series string, number uint64) []byte {
	return binary.BigEndian.AppendUint64(prefixQueue(study, series), number)
}

func prefixQueue(study, series string) []byte {
	return appendUID(appendUID([]byte{rowQueue}, study), series)
}

func keyPack(id pack.ID) []byte { return append([]byte{rowPack}, id[:]...) }

func keyLost(p *archivepb.Pack) []byte {
	return append(appendUID(appendUID([]byte{rowLost}, p.Study), p.Series), p.Id...)
}

func prefixMember(id pack.ID) []byte { return append([]byte{rowMember}, id[:]...) }

func keyEmpty(id pack.ID) []byte { return append([]byte{rowEmpty}, id[:]...) }

func keyGone(id pack.ID) []byte { return append([]byte{rowGone}, id[:]...) }

func keyForget(study string) []byte { return appendUID([]byte{rowForget}, study) }

func keyAgain(name seriesName) []byte {
	return appendUID(appendUID([]byte{rowAgain}, name.study), name.series)
}

func keyMember(id pack.ID, number uint64) []byte {
	return binary.BigEndian.AppendUint64(prefixMember(id), number)
}

// after returns the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		end[i]++
		if end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// splitUIDs cuts n zero-terminated UIDs off a key's tail.
func splitUIDs(key []byte, n int) (uids [3]string, rest []byte, ok bool) {
	for i := range n {
		end := bytes.IndexByte(key, 0)
		if end < 0 {
			return uids, nil, false
		}
		uids[i], key = string(key[:end]), key[end+1:]
	}
	return uids, key, true
}

// listing is the value of a series row: what a retrieve must know of an
// instance before it opens it.
//
//	number BE64 | bytes BE64 | class length u8 | class | syntax
type listing struct {
	number        uint64
	bytes         int64
	class, syntax string
}

func (l listing) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, l.number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.bytes))
	b = append(b, byte(len(l.class)))
	b = append(b, l.class...)
	return append(b, l.syntax...)
}

func parseListing(b []byte) (listing, bool) {
	if len(b) < 17 || len(b) < 17+int(b[16]) {
		return listing{}, false
	}
	class := 17 + int(b[16])
	return listing{
		number: binary.BigEndian.Uint64(b),
		bytes:  int64(binary.BigEndian.Uint64(b[8:])),
		class:  string(b[17:class]),
		syntax: string(b[class:]),
	}, true
}
