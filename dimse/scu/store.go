package scu

import (
	"context"
	"io"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dict"
)

// Originator names the C-MOVE that a C-STORE is a sub-operation of
// (PS3.7 §9.3.1.1); zero for a C-STORE of its own.
type Originator struct {
	AE        string
	MessageID uint16
}

// StoreRequest is one instance to store.
type StoreRequest struct {
	Class, Instance string    // as in the data set
	Syntax          string    // transfer syntax UID in which Data is encoded
	Data            io.Reader // the data set without group 0002; sent exactly as read
	Priority        uint16    // command.PriorityMedium, ...High, ...Low
	Originator      Originator
}

// Store sends one instance over a presentation context with exactly its
// transfer syntax, and returns the peer's status: 0000, or a warning
// (Bxxx, PS3.4 B.2.3). Any other status is an error with a
// [dimse.StatusError]. fault.Unsupported: no such context was accepted;
// [Choose] tells beforehand what can be sent.
func (i *Invoker) Store(ctx context.Context, r StoreRequest) (command.Status, error) {
	c, ok := i.contextFor(r.Class, r.Syntax)
	if !ok {
		return 0, fault.New(fault.Unsupported, "C-STORE: class %s in transfer syntax %s was not negotiated", r.Class, r.Syntax)
	}
	set := &command.Set{
		Field:                 command.CStoreRQ,
		Class:                 r.Class,
		Instance:              r.Instance,
		Priority:              r.Priority,
		HasData:               true,
		MoveOriginator:        r.Originator.AE,
		MoveOriginatorMessage: r.Originator.MessageID,
	}
	answer, err := i.once(ctx, c.ID, set, r.Data)
	if err != nil {
		return 0, err
	}
	return answer.Status, statusError(dimse.Store, answer)
}

// contextFor returns an accepted context with this very syntax, in which this
// end may act as SCU.
func (i *Invoker) contextFor(class, syntax string) (assoc.Context, bool) {
	for _, c := range i.association.Contexts() {
		if c.Abstract == class && c.Syntax == syntax && usable(c, i.requestor) {
			return c, true
		}
	}
	return assoc.Context{}, false
}

// Choose returns the transfer syntax in which an instance can be sent over
// the association: see [Choose].
func (i *Invoker) Choose(class, stored string) (string, error) {
	return Choose(i.association.Contexts(), i.requestor, class, stored)
}

// usable reports whether a context was accepted with the SCU role for one end.
// The roles of a context are the requestor's.
func usable(c assoc.Context, requestor bool) bool {
	if c.Result != 0 {
		return false
	}
	if requestor {
		return c.SCU
	}
	return c.SCP
}

// Choose returns the transfer syntax in which an instance that is stored in a
// given syntax can be sent: that one if a context with it was accepted, else,
// if it is uncompressed, an uncompressed one to which the data set must then be
// converted. requestor says whether the sending end requested the association.
// fault.Unsupported: no context fits.
func Choose(contexts []assoc.Context, requestor bool, class, stored string) (string, error) {
	accepted := func(syntax string) bool {
		for _, c := range contexts {
			if c.Abstract == class && c.Syntax == syntax && usable(c, requestor) {
				return true
			}
		}
		return false
	}
	if accepted(stored) {
		return stored, nil
	}
	if s, known := dict.Syntax(stored); known && s.Uncompressed() {
		for _, syntax := range conversions {
			if accepted(syntax) {
				return syntax, nil
			}
		}
	}
	return "", fault.New(fault.Unsupported, "class %s stored in transfer syntax %s: no presentation context was negotiated for it", class, stored)
}

// conversions are the syntaxes to convert to, the best first: explicit little
// endian keeps every VR, implicit every length; the others are rare.
var conversions = [...]string{
	dict.ExplicitLittleEndian, dict.ImplicitLittleEndian,
	dict.DeflatedExplicitLittleEndian, dict.ExplicitBigEndian,
}
