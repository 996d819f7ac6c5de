package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zeebo/blake3"

	"pelago/chaos/proc"
	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
	"pelago/node/admin"
)

// demoWait is how long a node may take to start, to join or to end.
const demoWait = 2 * time.Minute

// demoSite is a site of a demonstration: a node that is a process of its own.
type demoSite struct {
	e      *env
	dir    string
	name   string
	ports  []string // arguments of serve
	peer   string
	node   *proc.Node
	client *client
	stored []*study
}

// newDemoSite chooses the ports of the site of a number, from 0: those that
// people know, and those above, or any that are free.
func newDemoSite(e *env, dir, name string, number int) *demoSite {
	s := &demoSite{e: e, dir: filepath.Join(dir, name), name: name, peer: freePort(7700 + number)}
	s.ports = []string{"--dicom", freePort(11112 + number), "--http", freePort(8080 + number), "--peer", s.peer}
	return s
}

// freePort prefers a port and takes any when it is busy.
func freePort(preferred int) string {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(preferred))
	if l, err := net.Listen("tcp", address); err == nil {
		l.Close()
		return address
	}
	port, err := proc.FreePort()
	if err != nil {
		return address // which the node will complain of
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// start runs the node with further arguments of serve, and waits until it is ready.
func (s *demoSite) start(ctx context.Context, more ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	s.node, err = proc.Start(ctx, proc.Options{
		Binary: self, Dir: s.dir, Site: s.name, Args: append(s.ports, more...), Ready: demoWait,
		Env: []string{"PELAGO_STORE_AHEAD=0"}, // what a node writes ahead would be much, for so many on one disk
	})
	if err != nil {
		return err
	}
	return s.find()
}

// join runs the node as one of the network of another, which it needs a token of.
func (s *demoSite) join(ctx context.Context, other *demoSite) error {
	made, err := other.node.Command(ctx, "token", "--data", other.node.Data())
	if err != nil {
		return err
	}
	if made.Code != 0 {
		return fault.New(fault.Other, "pelago token: %s", lastLine(made.Stderr))
	}
	return s.start(ctx, "--join", other.peer, "--token", lastLine(made.Stdout))
}

// again starts a node that was killed. The token was for once: it is known now.
func (s *demoSite) again(ctx context.Context) error {
	if err := s.node.Restart(ctx); err != nil {
		return err
	}
	return s.find()
}

// find makes the client of the API.
func (s *demoSite) find() (err error) {
	s.client, err = target{Data: s.node.Data()}.node(s.e)
	return err
}

// stop ends the node cleanly.
func (s *demoSite) stop() error {
	if s.node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), demoWait)
	defer cancel()
	return s.node.Stop(ctx)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (s *demoSite) target() scu.Target {
	return scu.Target{Addr: s.node.DICOM(), Called: s.node.AE(), Calling: "DEMO"}
}

// store sends studies. What was made on the spot goes through dcmtk's storescu
// where it is installed, and everything through our own verbatim client, which is
// told of the former that they are here already. Real files do not go through
// storescu: it writes sequences, group lengths and paddings anew, so that what
// arrives is not what the file holds.
func (s *demoSite) store(ctx context.Context, m *images, studies ...*study) error {
	sender := scu.NewSender(s.target(), m.kinds, 1)
	for _, one := range studies {
		if one.made {
			if err := s.storescu(ctx, one.files); err != nil {
				return errors.Join(err, sender.Close(ctx))
			}
		}
		for _, name := range one.files {
			in, err := outgoing(name)
			if err == nil {
				_, err = sender.Store(ctx, in, scu.Originator{})
			}
			if err != nil {
				return errors.Join(fmt.Errorf("%s: %w", filepath.Base(name), err), sender.Close(ctx))
			}
		}
	}
	s.stored = append(s.stored, studies...)
	return sender.Close(ctx)
}

// hasDCMTK reports whether dcmtk's sender is installed.
func hasDCMTK() bool {
	_, err := exec.LookPath("storescu")
	return err == nil
}

// storescu sends files with dcmtk, if it is installed.
func (s *demoSite) storescu(ctx context.Context, files []string) error {
	if !hasDCMTK() {
		return nil
	}
	host, port, err := net.SplitHostPort(s.node.DICOM())
	if err != nil {
		return err
	}
	args := append([]string{"-aec", s.node.AE(), "-aet", "DEMO", host, port}, files...)
	if out, err := exec.CommandContext(ctx, "storescu", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("storescu: %w: %s", err, lastLine(string(out)))
	}
	return nil
}

// findDIMSE lists the Study Instance UIDs that the site finds over C-FIND, with
// the number of instances of each.
func (s *demoSite) findDIMSE(ctx context.Context) (map[string]int, error) {
	client, err := scu.Dial(ctx, s.target(), scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
	if err != nil {
		return nil, err
	}
	keys := studyKeys("")
	keys.Set(dict.PatientName, dict.PN)
	keys.Set(dict.NumberOfStudyRelatedInstances, dict.IS)
	found := map[string]int{}
	for match, err := range client.Find(ctx, scu.Query{Root: dimse.StudyRoot, Identifier: keys}) {
		if err != nil {
			return nil, errors.Join(err, client.Abort())
		}
		n, err := strconv.Atoi(match.String(dict.NumberOfStudyRelatedInstances))
		if err != nil {
			return nil, errors.Join(fault.New(fault.Invalid, "a study without a number of instances"), client.Abort())
		}
		found[match.String(dict.StudyInstanceUID)] = n
	}
	return found, client.Release(ctx)
}

// findWeb is findDIMSE over QIDO-RS.
func (s *demoSite) findWeb(ctx context.Context) (map[string]int, error) {
	answer, err := s.client.do(ctx, http.MethodGet, "/dicom-web/studies", nil, http.Header{"Accept": {"application/dicom+json"}})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	found := map[string]int{}
	err = eachMatch(answer.Body, func(m match) error {
		n, err := strconv.Atoi(m.first(dict.NumberOfStudyRelatedInstances))
		found[m.first(dict.StudyInstanceUID)] = n
		return err
	})
	return found, err
}

// knows reports whether the site finds all instances of some studies, and no
// others, over both protocols.
func (s *demoSite) knows(ctx context.Context, studies []*study) (bool, error) {
	for _, find := range []func(context.Context) (map[string]int, error){s.findDIMSE, s.findWeb} {
		found, err := find(ctx)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.name, err)
		}
		if len(found) != len(studies) {
			return false, nil
		}
		for _, one := range studies {
			if found[one.uid] != len(one.files) {
				return false, nil
			}
		}
	}
	return true, nil
}

// get opens studies over C-GET and compares. It returns the bytes.
func (s *demoSite) get(ctx context.Context, m *images, studies ...*study) (bytes int64, err error) {
	client, err := scu.Dial(ctx, s.target(), scu.ProposeGet(dimse.StudyRoot, m.kinds))
	if err != nil {
		return 0, err
	}
	same := 0
	var differs error // what we complained of: the node answers with a status only
	for _, one := range studies {
		for _, err := range client.Get(ctx, scu.Query{Root: dimse.StudyRoot, Identifier: studyKeys(one.uid)}, func(_ context.Context, r *scu.Incoming) error {
			n, err := m.compare(r.Instance, r.Data)
			if fault.Is(err, fault.Corrupt) {
				differs = err
			}
			same++
			bytes += n
			return err
		}) {
			if err != nil {
				// The abort first: after it the handler runs no more.
				aborted := client.Abort()
				return bytes, errors.Join(err, differs, aborted)
			}
		}
	}
	if want := files(studies); same != want {
		return bytes, errors.Join(fault.New(fault.Corrupt, "%s: %d of %d instances came back", s.name, same, want), client.Abort())
	}
	return bytes, client.Release(ctx)
}

// studyKeys is the identifier of a study, or of all where there is no UID.
func studyKeys(uid string) *dicom.Dataset {
	keys := dicom.NewDataset()
	keys.Set(dict.QueryRetrieveLevel, dict.CS, "STUDY")
	if uid == "" {
		keys.Set(dict.StudyInstanceUID, dict.UI)
	} else {
		keys.Set(dict.StudyInstanceUID, dict.UI, uid)
	}
	return keys
}

// compare reads an instance and holds it against what was sent: fault.Corrupt if
// it is another.
func (m *images) compare(instance string, data io.Reader) (int64, error) {
	h := blake3.New()
	n, err := io.Copy(h, data)
	if err == nil && [32]byte(h.Sum(nil)) != m.hashes[instance] {
		err = fault.New(fault.Corrupt, "instance %s came back different", instance)
	}
	return n, err
}

// wado opens studies over WADO-RS and compares.
func (s *demoSite) wado(ctx context.Context, m *images, studies ...*study) error {
	x := exportCommand{To: filepath.Join(s.dir, "exported")}
	for _, one := range studies {
		all, err := instancesOf(ctx, s.client, one.uid)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if len(all) != len(one.files) {
			return fault.New(fault.Corrupt, "%s: %d of %d instances are listed", s.name, len(all), len(one.files))
		}
		for _, w := range all {
			if _, err := x.write(ctx, s.client, w); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			f, err := os.Open(filepath.Join(x.To, fileName(w.study), fileName(w.series), fileName(w.instance)+".dcm"))
			if err != nil {
				return err
			}
			_, body, err := dicom.OpenFile(f)
			if err == nil {
				_, err = m.compare(w.instance, body)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return os.RemoveAll(x.To)
}

// verify packs and re-reads everything.
func (s *demoSite) verify(ctx context.Context) (received, rests int64, err error) {
	if err := s.client.call(ctx, http.MethodPost, "/api/pack", nil, nil); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	end, err := s.client.follow(ctx, "/api/verify", nil, func(admin.Progress) {})
	if err != nil {
		return 0, 0, fmt.Errorf("%s: %w", s.name, err)
	}
	if n := len(end.Report.Findings); n > 0 {
		text, err := json.Marshal(end.Report.Findings[0])
		return 0, 0, errors.Join(fault.New(fault.Corrupt, "%s: %d findings, such as %s", s.name, n, text), err)
	}
	st, err := s.status(ctx)
	return int64(end.Report.Bytes), st.BulkBytes, err
}

func (s *demoSite) status(ctx context.Context) (st admin.Status, err error) {
	err = s.client.get(ctx, "/api/status", &st)
	return st, err
}
