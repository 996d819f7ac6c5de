package ae

import (
	"context"
	"io"
	"time"

	"pelago/dimse"
	"pelago/dimse/scp"
	"pelago/node/archive"
)

// Store implements [scp.Storer]: it returns once the instance is durable.
func (s *session) Store(ctx context.Context, r *scp.StoreRequest) error {
	began := time.Now()
	body := &counted{r: r.Data}
	stored, err := s.face.o.Archive.Store(ctx, archive.Incoming{
		Sender: archive.Sender{
			CallingAE: s.caller.Title, Remote: s.remote, Issuer: s.caller.Issuer, Charset: s.caller.Charset,
		},
		Syntax: r.Syntax, Class: r.Class, Instance: r.Instance, Body: body,
	})
	now := time.Now()
	s.stored.add(stored.Study, stored.Patient, r.Class, err != nil, now)
	s.account(s.stored.take(now))
	status, _ := dimse.StatusOf(dimse.Store, err)
	s.face.o.Observe("C-STORE", uint16(status), now.Sub(began), body.n)
	if err == nil && stored.Outcome == archive.Quarantined {
		s.face.o.Log.Warn("instance quarantined", "calling_ae", s.caller.Title, "number", stored.Number, "deleted", stored.Deleted)
	}
	return err
}

// counted counts what is read through it.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
