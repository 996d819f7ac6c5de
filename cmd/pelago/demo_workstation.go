package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/ae"
)

// workstation takes what it is sent and holds it against what was stored.
type workstation struct {
	images *images
	port   uint16
	ended  chan error
	cut    context.CancelFunc

	mu      sync.Mutex // guards what is below
	got     map[string]bool
	differs error
}

// openWorkstation starts one on a free port of the loopback.
func openWorkstation(m *images) (*workstation, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cut := context.WithCancel(context.Background())
	w := &workstation{images: m, port: l.Addr().(*net.TCPAddr).AddrPort().Port(), ended: make(chan error, 1), cut: cut, got: map[string]bool{}}
	server := &scp.Server{Admit: w}
	go func() { w.ended <- server.Serve(ctx, l) }()
	return w, nil
}

func (w *workstation) close() error {
	w.cut()
	if err := <-w.ended; !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Admit implements [scp.Admitter].
func (w *workstation) Admit(context.Context, *assoc.Request) (*scp.Session, error) {
	return &scp.Session{Store: w}, nil
}

// Store implements [scp.Storer].
func (w *workstation) Store(_ context.Context, r *scp.StoreRequest) error {
	_, err := w.images.compare(r.Instance, r.Data)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got[r.Instance] = true
	if fault.Is(err, fault.Corrupt) {
		w.differs = err
	}
	return err
}

// workstationTitle is the same at every site: an AE is known by its site and title.
const workstationTitle = "WORKSTATION"

// move registers a workstation at the site, and has studies sent to it.
func (s *demoSite) move(ctx context.Context, w *workstation, studies []*study) error {
	entry := ae.AE{Title: workstationTitle, Hosts: []string{"127.0.0.1"}, Port: w.port}
	if err := s.client.call(ctx, http.MethodPut, "/api/aes/"+entry.Title, entry, nil); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	client, err := scu.Dial(ctx, s.target(), scu.ProposeMove(dimse.StudyRoot))
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	for _, one := range studies {
		for p, err := range client.Move(ctx, entry.Title, scu.Query{Root: dimse.StudyRoot, Identifier: studyKeys(one.uid)}) {
			if err == nil && p.Failed > 0 {
				err = fault.New(fault.Unavailable, "%d of %d instances were not sent", p.Failed, len(one.files))
			}
			if err != nil {
				w.mu.Lock()
				defer w.mu.Unlock()
				return errors.Join(fmt.Errorf("%s: %w", s.name, err), w.differs, client.Abort())
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if want := files(studies); len(w.got) != want {
		err = fault.New(fault.Corrupt, "%s: %d of %d instances came", s.name, len(w.got), want)
	}
	return errors.Join(err, w.differs, client.Release(ctx))
}
