package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/dimsetest/samples"
	"pelago/dimse/scu"
)

// instance is a data set to store and to compare with.
type instance struct {
	name                      string // for messages
	data                      []byte // without group 0002
	hash                      [32]byte
	class, sop, study, series string // of the data set
	syntax                    string
	file                      []byte // as it lies on disk
}

// kind is what a presentation context carries.
func (i instance) kind() scu.Kind { return scu.Kind{Class: i.class, Syntax: i.syntax} }

// outgoing is the instance as one to send, verbatim.
func (i instance) outgoing() scu.Instance {
	return scu.Instance{Class: i.class, UID: i.sop, Syntax: i.syntax, Open: func(context.Context, string) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(i.data)), nil
	}}
}

// nonPatient reports whether the instance belongs to no study.
func (i instance) nonPatient() bool { return dict.IsNonPatient(i.class) && i.study == "" }

// read takes a Part 10 file apart. What it holds is not judged here.
func read(t testing.TB, name string, file []byte) (instance, error) {
	t.Helper()
	in := instance{name: name, file: file}
	meta, body, err := dicom.OpenFile(bytes.NewReader(file))
	if err != nil {
		return in, err
	}
	in.syntax = meta.Syntax
	if in.data, err = io.ReadAll(body); err != nil {
		return in, err
	}
	in.hash = sha256.Sum256(in.data)
	syntax, _ := dict.Syntax(meta.Syntax)
	h, err := dicom.ReadHeader(bytes.NewReader(in.data), syntax, dicom.DefaultLimits)
	if err != nil {
		return in, err
	}
	ds := h.Dataset
	in.class, in.sop = ds.String(dict.SOPClassUID), ds.String(dict.SOPInstanceUID)
	in.study, in.series = ds.String(dict.StudyInstanceUID), ds.String(dict.SeriesInstanceUID)
	return in, nil
}

// made is a synthetic instance.
func made(i dimsetest.Instance) instance {
	syntax := i.Syntax
	if syntax == "" {
		syntax = dict.ExplicitLittleEndian
	}
	data := i.Dataset()
	return instance{
		name: i.SOPInstanceUID, data: data, hash: sha256.Sum256(data), file: i.File(),
		class: i.SOPClassUID, sop: i.SOPInstanceUID, study: i.StudyInstanceUID, series: i.SeriesInstanceUID, syntax: syntax,
	}
}

// world returns the instances of a made-up archive.
func world(w dimsetest.World) []instance {
	var all []instance
	for i := range w.All() {
		all = append(all, made(i))
	}
	return all
}

// corpus is the sample files: those that are to be stored, and those that are
// to be refused with the status that testdata/refused.txt says.
type corpus struct {
	valid   []instance
	refused []refusal
}

type refusal struct {
	instance
	status string // of C-STORE, four hexadecimal digits
	parsed bool   // it has a data set that can be read
}

// validSamples is how many of the samples are instances: a reader that took
// fewer for one would show nothing.
const validSamples = 726

// loadCorpus reads the samples.
func loadCorpus(t testing.TB) corpus {
	t.Helper()
	list, err := os.ReadFile("testdata/refused.txt")
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if status, name, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			statuses[name] = status
		}
	}
	var c corpus
	for _, f := range samples.All(t) {
		file, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		in, err := read(t, f.Name, file)
		if status := statuses[f.Name]; status != "" {
			c.refused = append(c.refused, refusal{instance: in, status: status, parsed: err == nil})
			delete(statuses, f.Name)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", f.Name, err)
			continue
		}
		c.valid = append(c.valid, in)
	}
	for name := range statuses {
		t.Errorf("testdata/refused.txt names %s, which is no sample", name)
	}
	if len(c.valid) != validSamples {
		t.Errorf("%d valid samples, want %d", len(c.valid), validSamples)
	}
	return c
}

// waves parts instances so that none shares a SOP Instance UID with another of
// its wave.
func waves(all []instance) [][]instance {
	var waves [][]instance
	seen := map[string]int{}
	for _, in := range all {
		n := seen[in.sop]
		seen[in.sop]++
		if n == len(waves) {
			waves = append(waves, nil)
		}
		waves[n] = append(waves[n], in)
	}
	return waves
}

// kinds are the presentation contexts that instances need.
func kinds(all []instance) []scu.Kind {
	var list []scu.Kind
	seen := map[scu.Kind]bool{}
	for _, in := range all {
		if k := in.kind(); !seen[k] {
			seen[k] = true
			list = append(list, k)
		}
	}
	return list
}

// studies are the Study Instance UIDs of instances; those that belong to no
// study are left out.
func studies(all []instance) []string {
	var list []string
	seen := map[string]bool{}
	for _, in := range all {
		if !in.nonPatient() && !seen[in.study] {
			seen[in.study] = true
			list = append(list, in.study)
		}
	}
	return list
}

// cstore stores instances over C-STORE, verbatim; each must succeed.
func (n *node) cstore(all []instance) {
	n.t.Helper()
	sender := scu.NewSender(n.target("E2E"), kinds(all), 8)
	var group sync.WaitGroup
	work := make(chan instance)
	for range 4 {
		group.Go(func() {
			for in := range work {
				status, err := sender.Store(n.t.Context(), in.outgoing(), scu.Originator{})
				if err != nil || status != 0 {
					n.t.Errorf("C-STORE %s: status %v: %v", in.name, status, err)
				}
			}
		})
	}
	for _, in := range all {
		work <- in
	}
	close(work)
	group.Wait()
	if err := sender.Close(n.t.Context()); err != nil {
		n.t.Error(err)
	}
}

// arrivals are data sets that came from the node.
type arrivals struct {
	mu   sync.Mutex
	seen map[string]arrival // by SOP Instance UID
	more []string           // UIDs that came twice
}

type arrival struct {
	class, syntax string
	hash          [32]byte
}

func (a *arrivals) add(sop string, in arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen == nil {
		a.seen = map[string]arrival{}
	}
	if _, twice := a.seen[sop]; twice {
		a.more = append(a.more, sop)
	}
	a.seen[sop] = in
}

// same fails the test unless exactly these instances came, byte for byte and in
// the syntax they are in.
func (a *arrivals) same(t testing.TB, how string, want []instance) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	wrong := 0
	for _, in := range want {
		got, ok := a.seen[in.sop]
		switch {
		case !ok:
			t.Errorf("%s: %s did not come back", how, in.name)
		case got.syntax != in.syntax:
			t.Errorf("%s: %s came back in %s, was stored in %s", how, in.name, got.syntax, in.syntax)
		case got.hash != in.hash:
			t.Errorf("%s: %s came back with other bytes", how, in.name)
		case got.class != "" && got.class != in.class:
			t.Errorf("%s: %s came back as %s", how, in.name, got.class)
		default:
			continue
		}
		if wrong++; wrong >= 10 {
			t.Errorf("%s: and so on", how)
			break
		}
	}
	if len(a.seen) != len(want) || len(a.more) > 0 {
		t.Errorf("%s: %d instances came back, %d of them twice, want %d", how, len(a.seen), len(a.more), len(want))
	}
}

// hashOf reads a data set to its end.
func hashOf(r io.Reader) (sum [32]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, r)
	return [32]byte(h.Sum(nil)), err
}

// identifier is a retrieve or query identifier of UIDs.
func identifier(level string, uids map[dict.Tag][]string) *dicom.Dataset {
	d := dicom.NewDataset()
	d.Set(dict.QueryRetrieveLevel, dict.CS, level)
	for tag, values := range uids {
		d.Set(tag, dict.UI, values...)
	}
	return d
}

// selections are the identifiers that name instances: their studies one by one,
// and those outside any study by their own UIDs.
func selections(all []instance) []*dicom.Dataset {
	var list []*dicom.Dataset
	for _, study := range studies(all) {
		list = append(list, identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {study}}))
	}
	for _, in := range all {
		if in.nonPatient() {
			list = append(list, identifier("IMAGE", map[dict.Tag][]string{dict.SOPInstanceUID: {in.sop}}))
		}
	}
	return list
}

// cget retrieves everything that instances name over C-GET.
func (n *node) cget(all []instance) *arrivals {
	n.t.Helper()
	proposal := scu.ProposeGet(dimse.StudyRoot, kinds(all))
	proposal.Extended = map[string][]byte{dimse.StudyRoot.Class(dimse.Get): dimse.QueryOptions{Relational: true}.Bytes(dimse.Get)}
	client, err := scu.Dial(n.t.Context(), n.target("E2E"), proposal)
	if err != nil {
		n.t.Fatal(err)
	}
	got := &arrivals{}
	for _, keys := range selections(all) {
		for p, err := range client.Get(n.t.Context(), scu.Query{Root: dimse.StudyRoot, Identifier: keys}, func(_ context.Context, in *scu.Incoming) error {
			sum, err := hashOf(in.Data)
			if err == nil {
				got.add(in.Instance, arrival{in.Class, in.Syntax, sum})
			}
			return err
		}) {
			if err != nil || p.Final && (p.Status != 0 || p.Failed > 0) {
				n.t.Errorf("C-GET %s%s: %+v: %v", keys.String(dict.StudyInstanceUID), keys.String(dict.SOPInstanceUID), p, err)
			}
		}
	}
	if err := client.Release(n.t.Context()); err != nil {
		n.t.Error(err)
	}
	return got
}

// cmove has everything that instances name sent to a registered AE, and returns
// the UIDs that the node says it could not send.
func (n *node) cmove(destination string, all []instance) (failed []string) {
	n.t.Helper()
	proposal := scu.ProposeMove(dimse.StudyRoot)
	proposal.Extended = map[string][]byte{dimse.StudyRoot.Class(dimse.Move): dimse.QueryOptions{Relational: true}.Bytes(dimse.Move)}
	client, err := scu.Dial(n.t.Context(), n.target("E2E"), proposal)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, keys := range selections(all) {
		last := scu.Progress{}
		for p, err := range client.Move(n.t.Context(), destination, scu.Query{Root: dimse.StudyRoot, Identifier: keys}) {
			if err != nil && !p.Final {
				n.t.Errorf("C-MOVE: %v", err)
			}
			last = p
		}
		failed = append(failed, last.FailedUIDs...)
		if !last.Final || len(last.FailedUIDs) != last.Failed || last.Failed == 0 && last.Status != 0 {
			n.t.Errorf("C-MOVE %s%s: %+v", keys.String(dict.StudyInstanceUID), keys.String(dict.SOPInstanceUID), last)
		}
	}
	if err := client.Release(n.t.Context()); err != nil {
		n.t.Error(err)
	}
	return failed
}

// asStored is the Accept header for stored bytes.
const asStored = `multipart/related; type="application/dicom"; transfer-syntax=*`

// wado retrieves everything that instances name over WADO-RS as stored.
func (n *node) wado(all []instance) *arrivals {
	n.t.Helper()
	got := &arrivals{}
	for _, study := range studies(all) {
		n.parts(n.do(http.MethodGet, "/dicom-web/studies/"+url.PathEscape(study), nil, http.Header{"Accept": {asStored}}), got)
	}
	for _, in := range all {
		if !in.nonPatient() {
			continue
		}
		// Outside any study there is no path; WADO-URI asks by object.
		query := url.Values{
			"requestType": {"WADO"}, "objectUID": {in.sop}, "contentType": {"application/dicom"}, "transferSyntax": {in.syntax},
		}
		answer := n.do(http.MethodGet, "/wado?"+query.Encode(), nil, nil)
		b := readAll(n.t, answer)
		if answer.StatusCode != http.StatusOK {
			n.t.Errorf("WADO-URI %s: %s", in.name, answer.Status)
			continue
		}
		n.part(bytes.NewReader(b), got)
	}
	return got
}

// parts reads the Part 10 files of a multipart answer.
func (n *node) parts(answer *http.Response, into *arrivals) {
	n.t.Helper()
	defer answer.Body.Close()
	_, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil || answer.StatusCode != http.StatusOK {
		n.t.Errorf("%s: %s, %s: %v", answer.Request.URL, answer.Status, answer.Header.Get("Content-Type"), err)
		return
	}
	parts := multipart.NewReader(answer.Body, parameters["boundary"])
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			n.t.Errorf("%s: %v", answer.Request.URL, err)
			return
		}
		_, said, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if got := n.part(p, into); err != nil || said["transfer-syntax"] != got {
			n.t.Errorf("%s: a part in %s says %q", answer.Request.URL, got, p.Header.Get("Content-Type"))
		}
	}
}

// part reads one Part 10 file and returns its transfer syntax.
func (n *node) part(r io.Reader, into *arrivals) string {
	n.t.Helper()
	meta, body, err := dicom.OpenFile(r)
	if err != nil {
		n.t.Error(err)
		return ""
	}
	sum, err := hashOf(body)
	if err != nil {
		n.t.Error(err)
	}
	into.add(meta.Instance, arrival{meta.Class, meta.Syntax, sum})
	return meta.Syntax
}

// stow stores instances over STOW-RS as they lie on disk, some in a request;
// each must succeed without a warning.
func (n *node) stow(all []instance) {
	n.t.Helper()
	const perRequest = 16
	for some := range slices.Chunk(all, perRequest) {
		status, answer := n.stowParts(some)
		if status != http.StatusOK || len(answer.stored) != len(some) || len(answer.failed) > 0 {
			n.t.Errorf("STOW-RS of %s and what follows: %d, %d of %d stored, %v", some[0].name, status, len(answer.stored), len(some), answer)
		}
	}
}

// stowed is what a STOW-RS answer says, by SOP Instance UID.
type stowed struct {
	stored map[string]string // warning reason; "" for none
	failed map[string]string // failure reason, decimal
}

// stowParts sends instances in one multipart request.
func (n *node) stowParts(all []instance) (int, stowed) {
	n.t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, in := range all {
		p, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
		if err == nil {
			_, err = p.Write(in.file)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		n.t.Fatal(err)
	}
	answer := n.do(http.MethodPost, "/dicom-web/studies", &body, http.Header{
		"Content-Type": {`multipart/related; type="application/dicom"; boundary=` + w.Boundary()}, "Accept": {"application/dicom+json"},
	})
	return answer.StatusCode, parseStowed(n.t, readAll(n.t, answer))
}

// parseStowed reads a STOW-RS answer (PS3.18 table 10.5.3-2); an answer that is
// none says nothing of any instance.
func parseStowed(t testing.TB, b []byte) stowed {
	t.Helper()
	type element struct {
		Value []json.RawMessage `json:"Value"`
	}
	s := stowed{stored: map[string]string{}, failed: map[string]string{}}
	var answer map[string]element
	if err := json.Unmarshal(b, &answer); err != nil {
		return s
	}
	take := func(tag, reason string, into map[string]string) {
		for i, raw := range answer[tag].Value {
			var item map[string]element
			if err := json.Unmarshal(raw, &item); err != nil {
				t.Fatalf("STOW-RS answer: %v\n%s", err, b)
			}
			sop := fmt.Sprint("unnamed ", i)
			if v := item["00081155"].Value; len(v) > 0 {
				sop = strings.Trim(string(v[0]), `"`)
			}
			into[sop] = ""
			if v := item[reason].Value; len(v) > 0 {
				into[sop] = string(v[0])
			}
		}
	}
	take("00081199", "00081196", s.stored)
	take("00081198", "00081197", s.failed)
	return s
}

// reader reads the instance's file.
func (i instance) reader() io.Reader { return bytes.NewReader(i.file) }
