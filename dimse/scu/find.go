package scu

import (
	"bytes"
	"context"
	"iter"
	"slices"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

const (
	tagQueryLevel dict.Tag = 0x00080052
	tagFailedUIDs dict.Tag = 0x00080058
)

// Query is a C-FIND, C-MOVE or C-GET identifier with its information model.
type Query struct {
	Root       dimse.Root
	Level      string // (0008,0052); "" leaves the identifier's own
	Identifier *dicom.Dataset
	Priority   uint16
}

// encode returns the identifier in the context's syntax. The caller's data set
// is not changed.
func (q Query) encode(syntax string) ([]byte, error) {
	d := *q.Identifier
	if q.Level != "" {
		d.Elements = slices.Clone(d.Elements)
		d.Set(tagQueryLevel, dict.CS, q.Level)
	}
	s, _ := dict.Syntax(syntax)
	return d.Encode(nil, s)
}

// ask sends the request of a query.
func (c *Client) ask(ctx context.Context, o dimse.Operation, q Query, set *command.Set) (*call, assoc.Context, error) {
	set.Class = q.Root.Class(o)
	set.Priority = q.Priority
	set.HasData = true
	pc, err := c.contextOf(set.Class)
	if err != nil {
		return nil, pc, err
	}
	identifier, err := q.encode(pc.Syntax)
	if err != nil {
		return nil, pc, err
	}
	call, err := c.invoke(ctx, pc.ID, set, bytes.NewReader(identifier))
	return call, pc, err
}

// Find asks C-FIND and yields the matching identifiers as they come. A loop
// that is left early, and a ctx that ends, cancel the query and wait for its
// final response (10 s at most, then the association is aborted). The last
// yield has the error, if the query failed. Ranging over the result twice asks
// twice.
func (c *Client) Find(ctx context.Context, q Query) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		call, pc, err := c.ask(ctx, dimse.Find, q, &command.Set{Field: command.CFindRQ})
		if err != nil {
			yield(nil, err)
			return
		}
		defer call.end()
		for {
			r, err := c.next(ctx, call)
			if err != nil {
				c.giveUp(ctx, call)
				yield(nil, err)
				return
			}
			if !r.set.Status.IsPending() {
				if err := statusError(dimse.Find, r.set); err != nil {
					yield(nil, err)
				}
				return
			}
			d, err := parseIdentifier(r, pc.Syntax)
			if !yield(d, err) || err != nil {
				c.giveUp(ctx, call)
				return
			}
		}
	}
}

// parseIdentifier reads the data set of a response.
func parseIdentifier(r response, syntax string) (*dicom.Dataset, error) {
	if r.err != nil {
		return nil, r.err
	}
	s, _ := dict.Syntax(syntax)
	return dicom.ParseDataset(r.data, s, dicom.DefaultLimits)
}

// giveUp cancels a call and waits for its final response, so that the
// association can be used further; where that takes too long it is aborted.
func (c *Client) giveUp(ctx context.Context, call *call) {
	last, cancel := pause(ctx, cancelGrace)
	defer cancel()
	select {
	case <-c.closed:
		return
	default:
	}
	err := c.Invoker.cancel(last, call)
	for err == nil {
		var r response
		if r, err = c.next(last, call); err == nil && !r.set.Status.IsPending() {
			return
		}
	}
	_ = c.association.Abort()
}
