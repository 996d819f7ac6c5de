package main

import (
	"bytes"
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
	"strings"
	"syscall"
	"time"

	"github.com/zeebo/blake3"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
	"pelago/node/admin"
	"pelago/node/datadir"
)

// demoCommand shows a node at work, on real images where there are some: it
// starts one as a process of its own, stores through a C-STORE client, kills
// and restarts it, and finds and opens everything again.
type demoCommand struct {
	Exit    bool   `help:"End by itself; the exit code says whether every step worked." env:"DEMO_EXIT"`
	Samples string `help:"Folder of DICOM files to store; the default is what PELAGO_SAMPLES names, else ../shared/dicom, else images made on the spot." env:"PELAGO_SAMPLES"`
	JSON    bool   `name:"json" help:"Print JSON, one object a line."`
}

// demo is a demonstration under way.
type demo struct {
	e      *env
	dir    string
	data   string
	server *exec.Cmd
	client *client
	files  []string
	made   []string            // those of files that were made on the spot
	hashes map[string][32]byte // SOP Instance UID → BLAKE3 of the data set sent
	kinds  []scu.Kind
}

const (
	demoWait      = 30 * time.Second
	phantomSlices = 60
)

func (d *demoCommand) Run(e *env) (err error) {
	dir, err := os.MkdirTemp("", "pelago-demo-")
	if err != nil {
		return err
	}
	show := &demo{e: e, dir: dir, data: filepath.Join(dir, "data"), hashes: map[string][32]byte{}}
	defer func() {
		err = errors.Join(err, show.stop(), os.RemoveAll(dir))
	}()
	steps := []struct {
		name string
		run  func(context.Context) (string, error)
	}{
		{"start a node", show.start},
		{"gather images", func(ctx context.Context) (string, error) { return show.gather(d.Samples) }},
		{"store them over C-STORE", show.store},
		{"kill the node (SIGKILL) and start it again", show.kill},
		{"find the studies over C-FIND and QIDO-RS", show.find},
		{"open every instance over C-GET, byte for byte", show.get},
		{"open every instance over WADO-RS, byte for byte", show.wado},
		{"pack what was stored, and verify all of it", show.verify},
	}
	for i, step := range steps {
		began := time.Now()
		said, err := step.run(e.ctx)
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.name, err)
		}
		if err := d.tell(e, i+1, step.name, said, time.Since(began)); err != nil {
			return err
		}
	}
	switch {
	case d.Exit:
		return nil
	case d.JSON:
		err = json.NewEncoder(e.stdout).Encode(map[string]string{"dicom": show.client.dicom, "web": show.client.base, "data": show.data})
	default:
		show.invite()
	}
	if err != nil {
		return err
	}
	<-e.ctx.Done()
	return nil
}

// tell says what a step did.
func (d *demoCommand) tell(e *env, number int, name, said string, took time.Duration) error {
	if d.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string]any{"step": number, "name": name, "seconds": took.Seconds(), "result": said})
	}
	_, err := fmt.Fprintf(e.stdout, "%d. %-50s %6.2f s  %s\n", number, name, took.Seconds(), said)
	return err
}

// freePort prefers the port people know and takes any when it is busy.
func freePort(preferred string) string {
	l, err := net.Listen("tcp", "127.0.0.1:"+preferred)
	if err != nil {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return "127.0.0.1:" + preferred
		}
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs a node and waits until it is ready.
func (d *demo) start(ctx context.Context) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dicomPort, httpPort := freePort("11112"), freePort("8080")
	if d.client != nil { // again where it was
		dicomPort, httpPort = d.client.dicom, strings.TrimPrefix(d.client.base, "http://")
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "node.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer log.Close()
	d.server = exec.Command(self, "serve", "--data", d.data, "--dicom", dicomPort, "--http", httpPort, "--peer", "127.0.0.1:0", "--site", "demo")
	d.server.Stdout, d.server.Stderr = log, log
	d.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	began := time.Now()
	if err := d.server.Start(); err != nil {
		return "", err
	}
	limited, cancel := context.WithTimeout(ctx, demoWait)
	defer cancel()
	for {
		n, err := datadir.Find(d.data)
		if err == nil && n.PID == d.server.Process.Pid {
			if d.client, err = (target{Data: d.data}).node(d.e); err != nil {
				return "", err
			}
			return fmt.Sprintf("ready after %d ms", time.Since(began).Milliseconds()), d.client.get(limited, "/readyz", &struct{}{})
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limited.Done():
			return "", fault.New(fault.Unavailable, "the node did not come up; its log is %s", log.Name())
		}
	}
}

// gather lists the images of the samples, and makes some.
func (d *demo) gather(samples string) (string, error) {
	if samples == "" {
		samples = filepath.Join("..", "shared", "dicom")
	}
	for _, part := range []string{"ct", "mr", "us", "cr-dx", "enhanced-ct", "sr", "pet"} {
		err := filepath.WalkDir(filepath.Join(samples, part), func(name string, entry os.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			d.add(name)
			return nil
		})
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
	}
	found := len(d.files)
	folder := filepath.Join(d.dir, "phantom")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return "", err
	}
	if err := writePhantom(folder, phantomSlices); err != nil {
		return "", err
	}
	names, err := filepath.Glob(filepath.Join(folder, "*.dcm"))
	for _, name := range names {
		d.add(name)
	}
	d.made = d.files[found:]
	if found == 0 {
		return fmt.Sprintf("no samples here: made %d CT slices", len(d.made)), err
	}
	return fmt.Sprintf("%d real files, and made %d CT slices", found, len(d.made)), err
}

// add takes a file into the demo if it is a whole DICOM file with an instance
// that is not in it yet.
func (d *demo) add(name string) {
	b, err := os.ReadFile(name)
	if err != nil {
		return
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return
	}
	hash := blake3.New()
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(io.TeeReader(body, hash), syntax, dicom.DefaultLimits)
	if err != nil || syntax.Refused {
		return
	}
	class, sop := h.Dataset.String(dict.SOPClassUID), h.Dataset.String(dict.SOPInstanceUID)
	if _, known := d.hashes[sop]; known || !dict.IsStorageClass(class) || h.Dataset.String(dict.StudyInstanceUID) == "" || h.Dataset.String(dict.SeriesInstanceUID) == "" {
		return
	}
	kind := scu.Kind{Class: class, Syntax: meta.Syntax}
	known := false
	for _, k := range d.kinds {
		known = known || k == kind
	}
	if !known {
		if len(d.kinds) >= 100 { // presentation contexts of one association
			return
		}
		d.kinds = append(d.kinds, kind)
	}
	d.hashes[sop] = [32]byte(hash.Sum(nil))
	d.files = append(d.files, name)
}

func (d *demo) peer() scu.Target {
	return scu.Target{Addr: d.client.dicom, Called: d.client.ae, Calling: "DEMO"}
}

// store sends the images that were made with dcmtk's storescu where it is
// installed, and everything with our own verbatim client, which is told of the
// former that they are here already. Real files do not go through storescu: it
// writes sequences, group lengths and paddings anew, so that what arrives is
// not what the file holds.
func (d *demo) store(ctx context.Context) (string, error) {
	said := "with Pelago's own client (dcmtk is not installed)"
	if storescu, err := exec.LookPath("storescu"); err == nil {
		said = fmt.Sprintf("with Pelago's own client, %d of them with dcmtk's storescu before", len(d.made))
		if err := d.storescu(ctx, storescu); err != nil {
			return "", err
		}
	}
	sender := scu.NewSender(d.peer(), d.kinds, 1)
	for _, name := range d.files {
		in, err := outgoing(name)
		if err == nil {
			_, err = sender.Store(ctx, in, scu.Originator{})
		}
		if err != nil {
			return "", errors.Join(fmt.Errorf("%s: %w", filepath.Base(name), err), sender.Close(ctx))
		}
	}
	return fmt.Sprintf("%d instances %s", len(d.files), said), sender.Close(ctx)
}

// storescu sends the images that were made.
func (d *demo) storescu(ctx context.Context, program string) error {
	if len(d.made) == 0 { // no presentation context was left for them
		return nil
	}
	host, port, err := net.SplitHostPort(d.client.dicom)
	if err != nil {
		return err
	}
	args := append([]string{"-aec", d.client.ae, "-aet", "DEMO", host, port}, d.made...)
	if out, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("storescu: %w: %s", err, lastLine(out))
	}
	return nil
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// outgoing reads a file as an instance to send.
func outgoing(name string) (scu.Instance, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return scu.Instance{}, err
	}
	meta, body, err := dicom.OpenFile(bytes.NewReader(b))
	if err != nil {
		return scu.Instance{}, err
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return scu.Instance{}, err
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(data), syntax, dicom.DefaultLimits)
	if err != nil {
		return scu.Instance{}, err
	}
	return scu.Instance{
		Class: h.Dataset.String(dict.SOPClassUID), UID: h.Dataset.String(dict.SOPInstanceUID), Syntax: meta.Syntax,
		Open: func(context.Context, string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}, nil
}

// kill ends the node without warning and starts it again.
func (d *demo) kill(ctx context.Context) (string, error) {
	if err := d.server.Process.Kill(); err != nil {
		return "", err
	}
	_ = d.server.Wait() // it was killed
	return d.start(ctx)
}

// find lists the studies over both protocols.
func (d *demo) find(ctx context.Context) (string, error) {
	client, err := scu.Dial(ctx, d.peer(), scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
	if err != nil {
		return "", err
	}
	keys := dicom.NewDataset()
	keys.Set(dict.QueryRetrieveLevel, dict.CS, "STUDY")
	keys.Set(dict.StudyInstanceUID, dict.UI)
	keys.Set(dict.PatientName, dict.PN)
	found := 0
	for _, err := range client.Find(ctx, scu.Query{Root: dimse.StudyRoot, Identifier: keys}) {
		if err != nil {
			return "", errors.Join(err, client.Abort())
		}
		found++
	}
	if err := client.Release(ctx); err != nil {
		return "", err
	}
	studies := 0
	answer, err := d.client.do(ctx, http.MethodGet, "/dicom-web/studies", nil, http.Header{"Accept": {"application/dicom+json"}})
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if err := eachMatch(answer.Body, func(match) error { studies++; return nil }); err != nil {
		return "", err
	}
	if found == 0 || found != studies {
		return "", fault.New(fault.Corrupt, "C-FIND found %d studies, QIDO-RS %d", found, studies)
	}
	return fmt.Sprintf("%d studies", found), nil
}

// studies lists the studies of what was sent.
func (d *demo) studies(ctx context.Context) ([]string, error) {
	var all []string
	answer, err := d.client.do(ctx, http.MethodGet, "/dicom-web/studies", nil, http.Header{"Accept": {"application/dicom+json"}})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	err = eachMatch(answer.Body, func(m match) error {
		all = append(all, m.first(dict.StudyInstanceUID))
		return nil
	})
	return all, err
}

// get retrieves every study over C-GET and compares.
func (d *demo) get(ctx context.Context) (string, error) {
	studies, err := d.studies(ctx)
	if err != nil {
		return "", err
	}
	client, err := scu.Dial(ctx, d.peer(), scu.ProposeGet(dimse.StudyRoot, d.kinds))
	if err != nil {
		return "", err
	}
	same := 0
	var bytes int64
	var differs error // what we complained of: the node answers with a status only
	for _, study := range studies {
		keys := dicom.NewDataset()
		keys.Set(dict.QueryRetrieveLevel, dict.CS, "STUDY")
		keys.Set(dict.StudyInstanceUID, dict.UI, study)
		for _, err := range client.Get(ctx, scu.Query{Root: dimse.StudyRoot, Identifier: keys}, func(_ context.Context, r *scu.Incoming) error {
			h := blake3.New()
			n, err := io.Copy(h, r.Data)
			if err != nil {
				return err
			}
			if [32]byte(h.Sum(nil)) != d.hashes[r.Instance] {
				differs = fault.New(fault.Corrupt, "instance %s came back different", r.Instance)
				return differs
			}
			same++
			bytes += n
			return nil
		}) {
			if err != nil {
				// The abort first: after it the handler runs no more.
				aborted := client.Abort()
				return "", errors.Join(err, differs, aborted)
			}
		}
	}
	if same != len(d.files) {
		return "", errors.Join(fault.New(fault.Corrupt, "%d of %d instances came back", same, len(d.files)), client.Abort())
	}
	return fmt.Sprintf("%d instances, %s", same, size(bytes)), client.Release(ctx)
}

// wado retrieves every instance over WADO-RS and compares.
func (d *demo) wado(ctx context.Context) (string, error) {
	studies, err := d.studies(ctx)
	if err != nil {
		return "", err
	}
	same := 0
	x := exportCommand{To: filepath.Join(d.dir, "exported")}
	for _, study := range studies {
		all, err := instancesOf(ctx, d.client, study)
		if err != nil {
			return "", err
		}
		for _, one := range all {
			if _, err := x.write(ctx, d.client, one); err != nil {
				return "", err
			}
			f, err := os.Open(filepath.Join(x.To, fileName(one.study), fileName(one.series), fileName(one.instance)+".dcm"))
			if err != nil {
				return "", err
			}
			_, body, err := dicom.OpenFile(f)
			h := blake3.New()
			if err == nil {
				_, err = io.Copy(h, body)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				return "", err
			}
			if [32]byte(h.Sum(nil)) != d.hashes[one.instance] {
				return "", fault.New(fault.Corrupt, "instance %s came back different", one.instance)
			}
			same++
		}
	}
	if same != len(d.files) {
		return "", fault.New(fault.Corrupt, "%d of %d instances came back", same, len(d.files))
	}
	return fmt.Sprintf("%d instances", same), nil
}

// verify packs and re-reads everything.
func (d *demo) verify(ctx context.Context) (string, error) {
	if err := d.client.call(ctx, http.MethodPost, "/api/pack", nil, nil); err != nil {
		return "", err
	}
	end, err := d.client.follow(ctx, "/api/verify", nil, func(admin.Progress) {})
	if err != nil {
		return "", err
	}
	if n := len(end.Report.Findings); n > 0 {
		text, err := json.Marshal(end.Report.Findings[0])
		return "", errors.Join(fault.New(fault.Corrupt, "%d findings, such as %s", n, text), err)
	}
	var s admin.Status
	if err := d.client.get(ctx, "/api/status", &s); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s received, %s at rest, nothing wrong", size(int64(end.Report.Bytes)), size(s.BulkBytes)), nil
}

// invite says what to try.
func (d *demo) invite() {
	host, port, _ := net.SplitHostPort(d.client.dicom) //nolint:errcheck // it was listened on
	fmt.Fprintf(d.e.stdout, `
The node is up. Try:
  echoscu -aec %[1]s %[2]s %[3]s
  findscu -S -k QueryRetrieveLevel=STUDY -k PatientName -k StudyInstanceUID -aec %[1]s %[2]s %[3]s
  curl '%[4]s/dicom-web/studies?limit=5'
  bin/pelago status --data %[5]s
  bin/pelago find --data %[5]s
`, d.client.ae, host, port, d.client.base, d.data)
}

// stop ends the node cleanly.
func (d *demo) stop() error {
	if d.server == nil || d.server.Process == nil {
		return nil
	}
	if err := d.server.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- d.server.Wait() }()
	select {
	case <-ended: //nolint:errcheck // how it ends when told to is its own affair
		return nil
	case <-time.After(demoWait):
		return errors.Join(fault.New(fault.Unavailable, "the node did not end"), d.server.Process.Kill())
	}
}
