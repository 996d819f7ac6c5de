package catalog

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"pelago/cluster/fault"
)

// TickFact moves the network's clock, which counts seconds from 0 and is what graces
// are measured by (DESIGN §7, Purge). Wall clocks have no part in it: whoever ticks
// adds what has passed since it saw the clock at From, so that the sum never runs
// ahead of time. fault.Conflict if the clock does not stand at From.
type TickFact struct{ From, To uint64 }

// SeenFact says how far the decision's node is: it has applied everything up to an
// index, and dropped what was purged up to another, both durably.
type SeenFact struct{ Applied, Dropped uint64 }

func (*TickFact) command() {}
func (*SeenFact) command() {}

// MaxTick bounds one tick: a node that lost the clock from sight does not make up for
// it, and one that is broken moves it by little.
const MaxTick = 2 * time.Hour

const maxTickSeconds = uint64(MaxTick / time.Second)

// Clock is the network's own time.
type Clock struct {
	Seconds uint64 // committed; 0: it has not begun
	First   uint64 // index of the entry that it began with
}

// Seen is what a member has said of itself.
type Seen struct {
	Applied, Dropped uint64
	At               uint64 // seconds of the clock when it said so, or became a member
}

// KindPurge is the registry kind of the network's terms of deletion: one record,
// under NameTerms, with what [Terms.Encode] makes.
const (
	KindPurge = "purge"
	NameTerms = "terms"
)

// Terms are how long deleted objects stay, and how long a member counts that is not
// heard of.
type Terms struct {
	Grace time.Duration // can be restored for this long, and are not purged
	Away  time.Duration
}

// DefaultTerms are those of a network that has not decided on others (DESIGN §2, §7).
func DefaultTerms() Terms {
	return Terms{Grace: DeleteGraceSeconds * time.Second, Away: 90 * 24 * time.Hour}
}

const termsVersion = 1

// Encode returns the record.
func (t Terms) Encode() []byte {
	b := binary.AppendUvarint([]byte{termsVersion}, seconds(t.Grace))
	return binary.AppendUvarint(b, seconds(t.Away))
}

func seconds(d time.Duration) uint64 { return uint64(max(d, 0) / time.Second) } //nolint:gosec // not below 0

// maxTerm bounds a term: a hundred years.
const maxTerm = 100 * 366 * 24 * 60 * 60

// decodeTerms reads the record; what is none, or says what cannot be, is the default.
func decodeTerms(row []byte) Terms {
	d := &decoder{b: row}
	version, grace, away := d.byte(), d.uvarint(), d.uvarint()
	if d.done("terms") != nil || version != termsVersion || grace == 0 || away == 0 || grace > maxTerm || away > maxTerm {
		return DefaultTerms()
	}
	return Terms{time.Duration(grace) * time.Second, time.Duration(away) * time.Second} //nolint:gosec // bounded
}

// KindHold is the registry kind of holds: nothing of a study or a patient that one
// names is purged while it stands. The value is opaque here.
const KindHold = "hold"

// StudyHold is the name of a hold of a study.
func StudyHold(study string) string { return "study/" + study }

// patientHolds begins the names of holds of patients.
const patientHolds = "patient/"

// PatientHold is the name of a hold of a patient's studies, those that come later too.
func PatientHold(p PatientKey) string {
	h := longHash(p.Issuer, p.ID)
	return fmt.Sprintf("%s%x", patientHolds, h[:16])
}

const clockVersion = 1

func (c Clock) encode() []byte {
	return binary.AppendUvarint(binary.AppendUvarint([]byte{clockVersion}, c.Seconds), c.First)
}

func decodeClock(row []byte) (c Clock, err error) {
	if row == nil {
		return c, nil
	}
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != clockVersion {
		return c, fault.New(fault.Unsupported, "catalog: clock of version %d", v)
	}
	c = Clock{d.uvarint(), d.uvarint()}
	return c, d.done("clock")
}

const seenVersion = 1

func (s Seen) encode() []byte {
	b := []byte{seenVersion}
	for _, v := range [...]uint64{s.Applied, s.Dropped, s.At} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeSeen(row []byte) (s Seen, err error) {
	if row == nil {
		return s, nil
	}
	d := &decoder{b: row}
	if v := d.byte(); !d.bad && v != seenVersion {
		return s, fault.New(fault.Unsupported, "catalog: how far a member is, of version %d", v)
	}
	s = Seen{d.uvarint(), d.uvarint(), d.uvarint()}
	return s, d.done("member's progress")
}

func (read records) clock() (Clock, error) {
	row, err := read([]byte{rowClock})
	if err != nil {
		return Clock{}, err
	}
	return decodeClock(row)
}

func (read records) seen(node string) (Seen, error) {
	row, err := read(seenKey(node))
	if err != nil {
		return Seen{}, err
	}
	return decodeSeen(row)
}

func (read records) terms() (Terms, error) {
	row, err := read(registryKey(KindPurge, NameTerms))
	return decodeTerms(row), err
}

func (t *txn) tickFact(f *TickFact, index uint64) (result, err error) {
	if f.To <= f.From || f.To-f.From > maxTickSeconds {
		return fault.New(fault.Invalid, "catalog: a tick of no time, or too much"), nil
	}
	c, err := records(t.read).clock()
	if err != nil {
		return nil, err
	}
	if c.Seconds != f.From {
		return fault.New(fault.Conflict, "catalog: the clock stands at %d, not at %d", c.Seconds, f.From), nil
	}
	if c.First == 0 {
		c.First = index
	}
	c.Seconds, t.ticked = f.To, true
	return nil, t.agree([]byte{rowClock}, c.encode())
}

func (t *txn) seenFact(f *SeenFact, node string, index uint64) (result, err error) {
	if f.Applied >= index || f.Dropped > f.Applied {
		return fault.New(fault.Invalid, "catalog: a member has applied what is still to come"), nil
	}
	if !t.ticked {
		return fault.New(fault.Conflict, "catalog: the clock has not begun"), nil
	}
	c, err := records(t.read).clock()
	if err != nil {
		return nil, err
	}
	s, err := records(t.read).seen(node)
	if err != nil {
		return nil, err
	}
	s = Seen{max(s.Applied, f.Applied), max(s.Dropped, f.Dropped), c.Seconds}
	return nil, t.agree(seenKey(node), s.encode())
}

// joined lets the time run from which on a new member counts as away. One that was a
// member may have joined anew with an earlier copy of what it had, or with nothing: what
// it said before does not count any more, and it says so anew. That is no sign of life,
// for others may have written its record.
func (t *txn) joined(node string) error {
	if !t.ticked {
		return nil
	}
	row, err := t.read(seenKey(node))
	if err != nil {
		return err
	}
	c, err := records(t.read).clock()
	if err != nil {
		return err
	}
	at := c.Seconds
	if row != nil {
		s, err := decodeSeen(row)
		if err != nil {
			return err
		}
		at = s.At
	}
	return t.agree(seenKey(node), Seen{At: at}.encode())
}

// Standing is how far a member that holds bytes is.
type Standing struct {
	Node string
	Seen
	Evicted bool // it was away for too long, and nobody waits for it
}

// standings are those of all members in good standing but witnesses, by node.
func (t *txn) standings() ([]Standing, error) {
	c, err := records(t.read).clock()
	if err != nil {
		return nil, err
	}
	terms, err := records(t.read).terms()
	if err != nil {
		return nil, err
	}
	var all []Standing
	prefix := registryKey(KindMember, "")
	err = t.each(prefix, func(key string, row []byte) error {
		node := strings.TrimPrefix(key, string(prefix))
		revoked, err := t.read(registryKey(KindRevoked, node))
		if err != nil || revoked != nil {
			return err
		}
		m, err := DecodeMember(row)
		if err != nil {
			return err
		}
		if m.Witness {
			return nil // it has no bytes to drop
		}
		s, err := records(t.read).seen(node)
		all = append(all, Standing{node, s, s.At <= c.Seconds && c.Seconds-s.At >= seconds(terms.Away)})
		return err
	})
	return all, err
}

// each calls visit for the small records under a prefix as the transaction has them, in no
// order. They must not be changed meanwhile.
func (t *txn) each(prefix []byte, visit func(key string, row []byte) error) (err error) {
	it, err := t.at.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("catalog: read records: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		if _, changed := t.small[string(it.Key())]; changed {
			continue
		}
		if err := visit(string(it.Key()), append([]byte(nil), it.Value()...)); err != nil {
			return err
		}
	}
	if err := it.Error(); err != nil {
		return fmt.Errorf("catalog: read records: %w", err)
	}
	for key, row := range t.small {
		if row != nil && strings.HasPrefix(key, string(prefix)) {
			if err := visit(key, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// Clock is what is committed of the network's time.
func (c *Catalog) Clock() (Clock, error) { return records(c.committed).clock() }

// Terms are those that hold now.
func (c *Catalog) Terms() (Terms, error) { return records(c.committed).terms() }

// Seen is what a member has said of itself last; zeros: nothing.
func (c *Catalog) Seen(node string) (Seen, error) { return records(c.committed).seen(node) }

// Standings are how far all members are that hold bytes.
func (c *Catalog) Standings() (all []Standing, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.begin().standings()
}
