package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/dimse"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
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

// where a query's time is taken.
var where = map[string]string{qido: "inside the server", cfind: "to the 100th response, seen by the client"}

func queryLines() []line {
	var lines []line
	for _, protocol := range []string{qido, cfind} {
		for _, sh := range shapes() {
			name := protocol + " " + sh.name
			lines = append(lines,
				line{name + ", p99 " + where[protocol] + " at 1,000,000 studies", name + " p99", "< 10 ms", []check{{most, "", 10}}})
			if !sh.fuzzy {
				lines = append(lines, line{name + ", median of Orthanc's at 20,000", name, "≥ 10× Orthanc", []check{{faster, shipped, 10}}})
			}
		}
	}
	return lines
}

func queries(ctx context.Context, b *bench, s *sheet) (err error) {
	s.note("one query at a time, each with another value where the shape has one. p99 of QIDO: of the durations that the node logs of each request; of C-FIND: of the client's, since the node's last until the cancellation after the hundredth pending response has come. Medians, and what the client sees of C-FIND: on loopback, with the network and our client in them")
	s.note("the catalogue was loaded through its own Apply; each study has one series, a key in the ring, and no instances behind it")
	s.note("Orthanc has no fuzzy matching of names: that shape has no ratio")
	dir, p, err := b.catalogue(ctx)
	if err != nil {
		return err
	}
	logging := b.pelago
	logging.Env = append(slices.Clip(logging.Env), "PELAGO_LOG_LEVEL=debug", "PELAGO_LOG_FORMAT=json")
	node, err := logging.Start(ctx, dir)
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
	defer web.close()
	for _, sh := range shapes() {
		if sh.fuzzy && who != pelago {
			continue
		}
		for _, protocol := range []string{qido, cfind} {
			if err := askShape(ctx, s, who, server, protocol, sh, p, web, count, round); err != nil {
				return fmt.Errorf("%s %s of %s: %w", protocol, sh.name, who, err)
			}
		}
	}
	return nil
}

// askShape measures a shape over a protocol.
func askShape(ctx context.Context, s *sheet, who string, server *peer.Server, protocol string, sh shape, p input.Population, web *client, count, round int) (err error) {
	query := func(keys map[string]string) (time.Duration, error) { return askQIDO(ctx, web, server, keys, sh.fuzzy) }
	if protocol == cfind {
		client, err := dialFind(ctx, server, sh.fuzzy) // now: Orthanc ends what idles
		if err != nil {
			return err
		}
		defer client.Release(ctx) //nolint:errcheck // nothing is measured any more
		query = func(keys map[string]string) (time.Duration, error) { return askFind(ctx, client, keys) }
	}
	var before []float64
	if who == pelago && protocol == qido {
		if before, err = logged(server); err != nil {
			return err
		}
	}
	var all []float64
	for n := range count {
		t, err := query(sh.keys(p, (round*count+n)*104_729))
		if err != nil {
			return err
		}
		all = append(all, milliseconds(t))
	}
	s.add(protocol+" "+sh.name, "ms", who, median(all))
	if who != pelago {
		return nil
	}
	if protocol == qido {
		if all, err = inside(ctx, server, len(before), count); err != nil {
			return err
		}
	}
	if len(all) > 0 {
		s.add(protocol+" "+sh.name+" p99", "ms", who, percentile(all, 99))
	}
	return nil
}

func askQIDO(ctx context.Context, client *client, server *peer.Server, keys map[string]string, fuzzy bool) (time.Duration, error) {
	q := url.Values{"limit": {fmt.Sprint(answers)}}
	for key, value := range keys {
		q.Set(key, strings.ReplaceAll(value, `\`, ","))
	}
	if fuzzy {
		q.Set("fuzzymatching", "true")
	}
	began := time.Now()
	err := client.fetch(ctx, server.Web+"/studies?"+q.Encode(), "application/dicom+json", 2)
	return time.Since(began), err
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
// is not measured.
func askFind(ctx context.Context, client *scu.Client, keys map[string]string) (time.Duration, error) {
	d := dicom.NewDataset()
	for _, t := range wanted {
		entry, _ := dict.Lookup(t)
		d.Set(t, entry.VR)
	}
	for key, value := range keys {
		entry, ok := dict.ByKeyword(key)
		if !ok {
			return 0, fmt.Errorf("no attribute %s", key)
		}
		d.Set(entry.Tag, entry.VR, value)
	}
	began := time.Now()
	n := 0
	for _, err := range client.Find(ctx, scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: d}) {
		if err != nil {
			return 0, err
		}
		if n++; n == answers {
			return time.Since(began), nil
		}
	}
	return time.Since(began), nil
}
