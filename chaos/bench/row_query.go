package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
	"pelago/query/plan"
	"pelago/replication/catalog"
)

// answers is how many are asked for.
const answers = 100

// shape is a kind of query: QIDO parameters that are C-FIND keys alike.
type shape struct {
	name  string
	fuzzy bool // Orthanc has no such matching
	keys  func(p input.Population, n int) map[string]string
}

// shapes are those of the requirement. Values are taken from the population.
func shapes() []shape {
	return []shape{
		{"patient id", false, func(p input.Population, n int) map[string]string {
			return map[string]string{"PatientID": p.Study(n % p.Size).PatientID}
		}},
		{"accession", false, func(p input.Population, n int) map[string]string {
			return map[string]string{"AccessionNumber": p.Study(n % p.Size).Accession}
		}},
		{"name prefix", false, func(p input.Population, n int) map[string]string {
			return map[string]string{"PatientName": p.Study(n % p.Size).Name[:4] + "*"}
		}},
		{"`*ANNA*`", false, func(input.Population, int) map[string]string { return map[string]string{"PatientName": "*ANNA*"} }},
		{"fuzzy name", true, func(p input.Population, n int) map[string]string {
			family, given, _ := strings.Cut(p.Study(n%p.Size).Name, "^")
			return map[string]string{"PatientName": family + "^" + given}
		}},
		{"one month", false, func(p input.Population, n int) map[string]string {
			from, _ := time.Parse("20060102", p.Study(n%p.Size).Date) // it was made by the same layout
			return map[string]string{"StudyDate": from.Format("20060102") + "-" + from.AddDate(0, 1, -1).Format("20060102")}
		}},
		{"modality and date", false, func(p input.Population, n int) map[string]string {
			s := p.Study(n % p.Size)
			return map[string]string{"ModalitiesInStudy": s.Modality, "StudyDate": s.Date}
		}},
		{"50 UIDs", false, func(p input.Population, n int) map[string]string {
			var uids []string
			for i := range 50 {
				uids = append(uids, p.Study((n+i*7919)%p.Size).UID)
			}
			return map[string]string{"StudyInstanceUID": strings.Join(uids, `\`)}
		}},
	}
}

// Protocols that are asked.
const (
	qido  = "QIDO"
	cfind = "C-FIND"
)

func queryLines() []line {
	var lines []line
	for _, protocol := range []string{qido, cfind} {
		for _, sh := range shapes() {
			name := protocol + " " + sh.name
			lines = append(lines, line{name + ", p99 at 1,000,000 studies", name + " p99", "< 10 ms", []check{{most, "", 10}}})
			if !sh.fuzzy {
				lines = append(lines, line{name + ", median of Orthanc's at 20,000", name, "≥ 10× Orthanc", []check{{faster, shipped, 10}}})
			}
		}
	}
	return lines
}

func queries(ctx context.Context, b *bench, s *sheet) (err error) {
	s.note("times are the client's on loopback, of one query at a time: the network and our client are in them. The catalogue was loaded through its own Apply; each study has one series and no instances behind it")
	s.note("Orthanc has no fuzzy matching of names: that shape has no ratio")
	dir, p, err := b.catalogue(ctx)
	if err != nil {
		return err
	}
	node, err := b.pelago.Start(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()
	files, err := b.tiny(seedMany, b.size.orthanc)
	if err != nil {
		return err
	}
	return b.with(ctx, b.contender(shipped), []folder{files}, func(orthanc *peer.Server) error {
		small := input.Population{Seed: seedMany, Size: b.size.orthanc}
		for round := range b.rounds {
			err := b.profiled(ctx, node, fmt.Sprintf("query-%d", round), func() error {
				return ask(ctx, s, pelago, node, p, b.size.queries, round)
			})
			if err == nil {
				err = ask(ctx, s, shipped, orthanc, small, b.size.slow, round)
			}
			if err != nil {
				return err
			}
			b.say("  round %d", round+1)
		}
		return nil
	})
}

// ask measures every shape over both protocols.
func ask(ctx context.Context, s *sheet, who string, server *peer.Server, p input.Population, count, round int) error {
	web := newClient()
	defer web.CloseIdleConnections()
	for _, sh := range shapes() {
		if sh.fuzzy && who != pelago {
			continue
		}
		client, err := dialFind(ctx, server, sh.fuzzy)
		if err != nil {
			return err
		}
		times := map[string][]float64{}
		for n := range count {
			keys := sh.keys(p, (round*count+n)*104_729)
			for protocol, query := range map[string]func() error{
				qido:  func() error { return askQIDO(ctx, web, server, keys, sh.fuzzy) },
				cfind: func() error { return askFind(ctx, client, keys) },
			} {
				began := time.Now()
				if err := query(); err != nil {
					return errors.Join(fmt.Errorf("%s %s of %s: %w", protocol, sh.name, who, err), client.Abort())
				}
				times[protocol] = append(times[protocol], float64(time.Since(began).Microseconds())/1e3)
			}
		}
		if err := client.Release(ctx); err != nil {
			return err
		}
		for protocol, t := range times {
			s.add(protocol+" "+sh.name, "ms", who, median(t))
			s.add(protocol+" "+sh.name+" p99", "ms", who, percentile(t, 99))
		}
	}
	return nil
}

func askQIDO(ctx context.Context, client *http.Client, server *peer.Server, keys map[string]string, fuzzy bool) error {
	q := url.Values{"limit": {fmt.Sprint(answers)}}
	for key, value := range keys {
		q.Set(key, strings.ReplaceAll(value, `\`, ","))
	}
	if fuzzy {
		q.Set("fuzzymatching", "true")
	}
	return fetch(ctx, client, server.Web+"/studies?"+q.Encode(), "application/dicom+json", 2)
}

// newClient returns a web client that keeps a connection for each of the
// parallel clients and asks nobody to compress: neither pixels nor the servers'
// compressors are what is compared.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}}
}

// fetch reads an answer to its end; one shorter than least is an error.
func fetch(ctx context.Context, client *http.Client, url, accept string, least int64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", accept)
	answer, err := client.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // read to its end
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && (answer.StatusCode != http.StatusOK || n < least) {
		err = fmt.Errorf("%s: %s, %d bytes", url, answer.Status, n)
	}
	return err
}

// dialFind opens an association for C-FIND.
func dialFind(ctx context.Context, server *peer.Server, fuzzy bool) (*scu.Client, error) {
	return scu.Dial(ctx, scu.Target{Addr: server.DICOM, Called: server.AE, Calling: "BENCH"},
		scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{Fuzzy: fuzzy}))
}

// wanted are the attributes that a C-FIND asks for.
var wanted = []dict.Tag{
	dict.StudyDate, dict.StudyTime, dict.AccessionNumber, dict.ModalitiesInStudy, dict.ReferringPhysicianName, dict.StudyDescription,
	dict.PatientName, dict.PatientID, dict.PatientBirthDate, dict.PatientSex, dict.StudyInstanceUID, dict.StudyID,
	dict.NumberOfStudyRelatedSeries, dict.NumberOfStudyRelatedInstances,
}

// askFind reads up to the hundredth pending response; cancelling what is left
// is not measured by those who have fewer.
func askFind(ctx context.Context, client *scu.Client, keys map[string]string) error {
	d := dicom.NewDataset()
	for _, t := range wanted {
		entry, _ := dict.Lookup(t)
		d.Set(t, entry.VR)
	}
	for key, value := range keys {
		entry, ok := dict.ByKeyword(key)
		if !ok {
			return fmt.Errorf("no attribute %s", key)
		}
		d.Set(entry.Tag, entry.VR, value)
	}
	n := 0
	for _, err := range client.Find(ctx, scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}) {
		if err != nil {
			return err
		}
		if n++; n == answers {
			break
		}
	}
	return nil
}

// catalogue returns the data directory of a node that knows the many studies,
// made once: in a run, or for all runs that are given -catalogue.
func (b *bench) catalogue(ctx context.Context) (string, input.Population, error) {
	p := input.Population{Seed: seedMany, Size: b.size.studies}
	home := filepath.Join(b.dir, "many")
	if b.kept != "" {
		home = filepath.Join(b.kept, fmt.Sprintf("studies-%d", p.Size))
	}
	dir, loaded := filepath.Join(home, "data"), filepath.Join(home, "loaded")
	_, err := b.inputs.make("many", func(string) (folder, error) {
		if _, err := os.Stat(loaded); err == nil {
			return folder{files: p.Size}, nil
		}
		if err := errors.Join(os.RemoveAll(home), os.MkdirAll(home, 0o700)); err != nil {
			return folder{}, err
		}
		node, err := b.pelago.Start(ctx, dir) // makes the stores
		if err != nil {
			return folder{}, err
		}
		if err := node.Stop(); err != nil {
			return folder{}, err
		}
		began := time.Now()
		if err := load(ctx, filepath.Join(dir, "catalog"), p); err != nil {
			return folder{}, err
		}
		b.say("  catalogue of %d studies loaded in %v", p.Size, time.Since(began).Round(time.Second))
		return folder{files: p.Size}, os.WriteFile(loaded, nil, 0o600)
	})
	return dir, p, err
}

// load applies the population's studies to a catalogue.
func load(ctx context.Context, dir string, p input.Population) (err error) {
	const cache = 1 << 30 // studies of a patient are far apart
	c, err := catalog.Open(catalog.Options{FS: vfs.Default, Dir: dir, Indexer: plan.Indexer{}, CacheBytes: cache})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Sync(), c.Close()) }()
	const batch = 1000
	index := c.Applied()
	for from := 0; from < p.Size; from += batch {
		var commands []catalog.Command
		for i := from; i < min(from+batch, p.Size); i++ {
			commands = append(commands, fact(p.Study(i), i))
		}
		index++
		results, err := c.Apply(index, commands)
		if err := errors.Join(append(results, err, ctx.Err())...); err != nil {
			return err
		}
	}
	return nil
}

// fact is what a node would announce of the study's one series.
func fact(s input.Study, i int) *catalog.SeriesFact {
	image := input.Instance{Study: s, Series: 1, Number: 1, Rows: 512, Columns: 512}
	f := &catalog.SeriesFact{
		Origin: "3f9a1c77d0e2b4a6", Site: "local", AsOf: uint64(i + 1), Study: s.UID, Series: s.SeriesUID(1), Issuer: "local",
		Attributes: catalog.Attributes(&dicom.Header{Dataset: image.Header()}),
		Instances:  1 + uint64(i%400), Classes: []string{s.Class}, Arrived: 1_700_000_000_000_000 + int64(i)*1000,
	}
	f.Bytes = f.Instances * 526_000
	for n := range f.UIDHash {
		f.UIDHash[n] = byte(i >> (8 * (n % 4)))
	}
	return f
}
