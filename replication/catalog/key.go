package catalog

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/shard"
)

// Rows of catalog/, by the first byte of their keys (docs/formats.md):
//
//	M                                  meta
//	m                                  position, as of the last change of its members
//	n number(4)                        a node and its site
//	c node                             cursor of a node's journal
//	d hash(16) of a decision           that it was taken
//	a number(4) series                 mark of a series that has sayings that are not committed yet
//	o                                  adoption under way
//	g kind 00 name                     registry
//	t study 00 series 00 instance      tombstone
//	r order                            study record
//	e number(4) series                 series record
//	u hash(8) of study UID             orders of the studies with that hash
//	v hash(8) of series UID, hash(8) of study UID   posting: the studies that hold a series
//	p hash(8) of patient, order        posting: a patient's studies
//	x index(1) term 00 order           posting: the Indexer's
//	y index(1) word                    vocabulary: the Indexer's
//	k id(16)                           study key
//	h hash(8) of study UID, id(16)     posting: keys of a study
//	j number(8)                        study keys in the order of commit
//	s hash(8) of study UID, hash(8) of series UID, pack(16)   seals of a pack
//	z spread(8) pack(16)               where the seals of a pack are
//	q                                  the network's clock
//	l node id                          how far a member is
//	w pack(16)                         a pack that was purged
//	b id(16)                           a study key that was forgotten
//	i id(16)                           a study key under which packs were purged
//	f index(8) kind(1) id(16)          what is gone, in the order of entries
const (
	rowMeta      = 'M'
	rowPosition  = 'm'
	rowName      = 'n'
	rowCursor    = 'c'
	rowDecision  = 'd'
	rowAhead     = 'a'
	rowAdoption  = 'o'
	rowRegistry  = 'g'
	rowTombstone = 't'
	rowStudy     = 'r'
	rowSeries    = 'e'
	rowStudyUID  = 'u'
	rowSeriesUID = 'v'
	rowPatient   = 'p'
	rowIndex     = 'x'
	rowWord      = 'y'
	rowKey       = 'k'
	rowKeyStudy  = 'h'
	rowKeyOrder  = 'j'
	rowPack      = 's'
	rowSpread    = 'z'
	rowClock     = 'q'
	rowSeen      = 'l'
	rowPurged    = 'w'
	rowForgotten = 'b'
	rowGone      = 'f'
	rowEmptied   = 'i'
)

const hashBytes = 8

func hash64(parts ...string) [hashBytes]byte {
	var room [128]byte
	b := room[:0]
	for i, p := range parts {
		if i > 0 {
			b = append(b, 0)
		}
		b = append(b, p...)
	}
	sum := blake3.Sum256(b)
	return [hashBytes]byte(sum[:hashBytes])
}

func seenKey(node string) []byte { return append([]byte{rowSeen}, node...) }

func purgedKey(pack [16]byte) []byte { return append([]byte{rowPurged}, pack[:]...) }

func emptiedKey(id [16]byte) []byte { return append([]byte{rowEmptied}, id[:]...) }

func forgottenKey(id [16]byte) []byte { return append([]byte{rowForgotten}, id[:]...) }

func goneKey(index uint64, kind byte, id [16]byte) []byte {
	return append(append(binary.BigEndian.AppendUint64([]byte{rowGone}, index), kind), id[:]...)
}

func studyKey(o Order) []byte { return append([]byte{rowStudy}, o[:]...) }

func seriesPrefix(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{rowSeries}, number)
}

func seriesKey(number uint32, uid string) []byte { return append(seriesPrefix(number), uid...) }

func uidKey(row byte, uid string) []byte {
	h := hash64(uid)
	return append([]byte{row}, h[:]...)
}

// seriesUIDKey is the posting of a series in a study. It is written without a
// look at what is there: naming it twice changes nothing.
func seriesUIDKey(series, study string) []byte {
	h := hash64(study)
	return append(uidKey(rowSeriesUID, series), h[:]...)
}

// patientPrefix is the prefix of a patient's postings. A study without Patient
// ID is its own patient (DESIGN §10).
func patientPrefix(p PatientKey, study string) []byte {
	h := hash64(p.Issuer, p.ID)
	if p.ID == "" {
		h = hash64("", "", study)
	}
	return append([]byte{rowPatient}, h[:]...)
}

func tombstoneKey(study, series, instance string) []byte {
	b := append([]byte{rowTombstone}, study...)
	b = append(append(b, 0), series...)
	return append(append(b, 0), instance...)
}

func registryKey(kind, name string) []byte {
	b := append([]byte{rowRegistry}, kind...)
	return append(append(b, 0), name...)
}

func cursorKey(node string) []byte { return append([]byte{rowCursor}, node...) }

// decisionKey is of the hash of what the decision's node signed.
func decisionKey(hash [32]byte) []byte { return append([]byte{rowDecision}, hash[:16]...) }

// aheadKey marks a series record.
func aheadKey(number uint32, uid string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{rowAhead}, number), uid...)
}

func keyKey(id [16]byte) []byte { return append([]byte{rowKey}, id[:]...) }

func keyStudyKey(study string, id [16]byte) []byte {
	return append(uidKey(rowKeyStudy, study), id[:]...)
}

func keyOrderKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{rowKeyOrder}, number)
}

// idAfter returns the id that a key, or a value, ends in.
func idAfter(b []byte, at int) (id [16]byte, err error) {
	if len(b) != at+len(id) {
		return id, fault.New(fault.Corrupt, "catalog: a row with an id of %d bytes", len(b)-at)
	}
	return [16]byte(b[at:]), nil
}

// packPrefix is that of the packs of a series or, with an empty one, of a study.
func packPrefix(study, series string) []byte {
	b := uidKey(rowPack, study)
	if series != "" {
		h := hash64(series)
		b = append(b, h[:]...)
	}
	return b
}

func packKey(study, series string, pack [16]byte) []byte {
	return append(packPrefix(study, series), pack[:]...)
}

// spreadKey stands among those of its placement group, however many there are.
func spreadKey(pack [16]byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{rowSpread}, shard.Spread(pack)), pack[:]...)
}

// indexPrefix is the prefix of the postings of a term.
func indexPrefix(index byte, term string) []byte {
	b := append([]byte{rowIndex, index}, term...)
	return append(b, 0)
}

// after returns the least key above every key with the prefix, nil if none.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
