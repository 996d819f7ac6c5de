package peer

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"

	"pelago/chaos/proc"
)

// run runs a tool of dcmtk to its end; anything but success is an error.
func run(ctx context.Context, name string, args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &out, attributes()
	if err := cmd.Run(); err != nil {
		text := out.Bytes()
		return out.String(), fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(text[max(0, len(text)-600):]))
	}
	return out.String(), nil
}

// StoreSCU sends folders with storescu, over one association, with further
// options of its own. It fails when any instance was not stored.
func (s *Server) StoreSCU(ctx context.Context, options []string, folders ...string) error {
	host, port, err := net.SplitHostPort(s.DICOM)
	if err != nil {
		return err
	}
	args := append([]string{"-aet", "BENCH", "-aec", s.AE, "+sd", "+r"}, options...)
	_, err = run(ctx, "storescu", append(append(args, host, port), folders...)...)
	return err
}

// GetSCU fetches a study with getscu, which drops what it receives, and
// returns how many instances it says have come.
func (s *Server) GetSCU(ctx context.Context, study string, options ...string) (int, error) {
	host, port, err := net.SplitHostPort(s.DICOM)
	if err != nil {
		return 0, err
	}
	args := append([]string{"-v", "-S", "-aet", "BENCH", "-aec", s.AE, "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=" + study}, options...)
	out, err := run(ctx, "getscu", append(args, host, port)...)
	return strings.Count(out, "Received C-STORE Request"), err
}

// MoveSCU has a study sent to a destination with movescu.
func (s *Server) MoveSCU(ctx context.Context, study, destination string) error {
	host, port, err := net.SplitHostPort(s.DICOM)
	if err != nil {
		return err
	}
	_, err = run(ctx, "movescu", "-S", "-aet", "BENCH", "-aec", s.AE, "-aem", destination,
		"-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID="+study, host, port)
	return err
}

// Sink starts dcmtk's storescp, which drops what it receives, and returns its
// port.
func Sink(ctx context.Context, dir, title string) (*Process, int, error) {
	path, err := exec.LookPath("storescp")
	if err != nil {
		return nil, 0, err
	}
	port, err := proc.FreePort()
	if err != nil {
		return nil, 0, err
	}
	p, err := launch("storescp", dir, nil, path, "-aet", title, "--ignore", fmt.Sprint(port))
	if err != nil {
		return nil, 0, err
	}
	if err := p.await(ctx, readyTime, accepts(fmt.Sprintf("127.0.0.1:%d", port))); err != nil {
		p.Kill()
		return nil, 0, err
	}
	return p, port, nil
}
