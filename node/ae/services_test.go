package ae

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scp"
	"pelago/dimse/scu"
	"pelago/node/archive"
	"pelago/query"
)

// matchOf makes an engine's match.
func matchOf(study, name string) *dicom.Dataset {
	d := dicom.NewDataset()
	d.Set(dict.StudyInstanceUID, dict.UI, study)
	d.Set(dict.PatientName, dict.PN, name)
	return d
}

// find runs a C-FIND and returns what it answers.
func find(s *session, root dimse.Root, level string, options dimse.QueryOptions, keys map[dict.Tag][]string) (all []*dicom.Dataset, partial bool, err error) {
	matches, err := s.Find(context.Background(), &scp.FindRequest{Root: root, Identifier: identifier(level, keys), Options: options})
	if err != nil {
		return nil, false, err
	}
	for d, err := range matches.Datasets {
		partial = partial || matches.Partial()
		if err != nil {
			return all, partial, err
		}
		all = append(all, d)
	}
	return all, partial, nil
}

func TestFindAnswers(t *testing.T) {
	unavailable := fault.New(fault.Unavailable, "no catalogue")
	one := []*dicom.Dataset{matchOf("1.2", "A")}
	for _, test := range []struct {
		name    string
		engine  answers
		level   string
		found   int
		partial bool
		kind    fault.Kind
	}{
		{"matches", answers{matches: one}, "STUDY", 1, false, 0},
		{"no match", answers{}, "STUDY", 0, false, 0},
		{"keys that could not be used", answers{matches: one, ignored: []dict.Tag{0x00081030}}, "STUDY", 1, true, 0},
		{"stale beyond the ordinary", answers{matches: one, stale: query.OrdinaryStaleness + 1}, "STUDY", 1, true, 0},
		{"never heard of anybody", answers{matches: one, stale: query.StalenessUnknown}, "STUDY", 1, true, 0},
		{"no staler than may be", answers{matches: one, stale: query.OrdinaryStaleness}, "STUDY", 1, false, 0},
		{"all sites answer", answers{matches: one, asks: true}, "STUDY", 1, false, 0},
		{"all sites answer that there is none", answers{asks: true}, "STUDY", 0, false, 0},
		{"a silent site, and matches", answers{matches: one, asks: true, silent: []string{"north"}}, "STUDY", 1, true, 0},
		{"a silent site, and several matches", answers{matches: slices.Concat(one, []*dicom.Dataset{matchOf("1.3", "A")}), asks: true, silent: []string{"north"}}, "STUDY", 2, true, 0},
		{"a silent site, and none", answers{asks: true, silent: []string{"north"}}, "STUDY", 0, true, fault.Unavailable},
		{"no level", answers{matches: one}, "", 0, false, fault.Mismatch},
		{"a level of another model", answers{matches: one}, "PATIENT", 0, false, fault.Mismatch},
		{"the engine fails", answers{failure: unavailable}, "STUDY", 0, false, fault.Unavailable},
		{"the engine fails later", answers{matches: one, breaks: unavailable}, "STUDY", 1, false, fault.Unavailable},
		{"the engine fails later, and asks others", answers{matches: one, breaks: unavailable, asks: true}, "STUDY", 1, false, fault.Unavailable},
	} {
		var l ledger
		status := -1
		s := sessionOf(New(Options{Title: "PELAGO", Engine: &test.engine, Audit: l.add, Observe: func(o string, st uint16, _ time.Duration, _ int64) {
			if o == "C-FIND" {
				status = int(st)
			}
		}}), AE{Title: "X", Issuer: "NORTH"})
		all, partial, err := find(s, dimse.StudyRoot, test.level, dimse.QueryOptions{}, map[dict.Tag][]string{dict.PatientName: {"A*"}})
		if len(all) != test.found || partial != test.partial || (err != nil) != (test.kind != 0) || err != nil && !fault.Is(err, test.kind) {
			t.Errorf("%s: %d matches, partial %t, %v", test.name, len(all), partial, err)
		}
		want, _ := dimse.StatusOf(dimse.Find, err)
		if status != int(want) {
			t.Errorf("%s: observed status %04X, want %04X", test.name, status, uint16(want))
		}
		events := l.of(Queried)
		if len(events) != 1 || !bytes.Contains(events[0].Query, []byte("A*")) || events[0].Class == "" {
			t.Errorf("%s: audited as %+v", test.name, events)
		}
		for _, d := range all {
			if d.String(dict.QueryRetrieveLevel) != "STUDY" || d.String(dict.RetrieveAETitle) != "PELAGO" {
				t.Errorf("%s: identifier without its level or AE title", test.name)
			}
		}
	}
}

func TestFindPassesOnWhatWasNegotiatedAndOnlyKeys(t *testing.T) {
	engine := &answers{}
	s := sessionOf(New(Options{Engine: engine}), AE{Title: "X", Issuer: "NORTH"})
	options := dimse.QueryOptions{Relational: true, Fuzzy: true, CombinedDateTime: true, Timezone: true}
	if _, _, err := find(s, dimse.StudyRoot, "SERIES", options, map[dict.Tag][]string{
		dict.Modality: {"CT"}, dict.RetrieveAETitle: {"ANY"}, dict.InstanceAvailability: {"NEARLINE"},
	}); err != nil {
		t.Fatal(err)
	}
	q := engine.asked
	if !slices.Contains(q.Return, dict.InstanceAvailability) {
		t.Error("the engine is not asked for the availability")
	}
	if !q.Relational || !q.Fuzzy || !q.CombinedDateTime || !q.Timezone || q.Issuer != "NORTH" {
		t.Errorf("asked %+v", q)
	}
	for _, tag := range []dict.Tag{dict.QueryRetrieveLevel, dict.RetrieveAETitle, dict.InstanceAvailability, dict.SpecificCharacterSet} {
		if q.Keys.Has(tag) {
			t.Errorf("%s is a key", tag)
		}
	}
	if _, _, err := find(s, dimse.StudyRoot, "SERIES", dimse.QueryOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	if q := engine.asked; q.Relational || q.Fuzzy || q.CombinedDateTime || q.Timezone {
		t.Errorf("asked %+v although nothing was negotiated", q)
	}
}

func TestAnswersUseTheAskersCharacterSetIfEveryValueFits(t *testing.T) {
	for _, test := range []struct{ asked, name, want string }{
		{"ISO_IR 100", "Müller^Ännchen", "ISO_IR 100"},
		{"ISO_IR 100", "Иванов", "ISO_IR 192"},
		{"ISO_IR 144", "Иванов", "ISO_IR 144"},
		{"ISO_IR 192", "山田^太郎", "ISO_IR 192"},
		{"", "Smith", ""},
		{"", "Müller", "ISO_IR 192"},
	} {
		engine := &answers{matches: []*dicom.Dataset{matchOf("1.2", test.name)}}
		s := sessionOf(New(Options{Engine: engine}), AE{Title: "X"})
		d := identifier("STUDY", nil)
		d.Remove(dict.SpecificCharacterSet)
		if test.asked != "" {
			d.Set(dict.SpecificCharacterSet, dict.CS, test.asked)
		}
		matches, err := s.Find(context.Background(), &scp.FindRequest{Root: dimse.StudyRoot, Identifier: d})
		if err != nil {
			t.Fatal(err)
		}
		for answer, err := range matches.Datasets {
			if err != nil {
				t.Fatal(err)
			}
			if got := answer.String(dict.SpecificCharacterSet); got != test.want || answer.String(dict.PatientName) != test.name {
				t.Errorf("asked in %q: %q in %q, want %q", test.asked, answer.String(dict.PatientName), got, test.want)
			}
		}
	}
}

func TestMoveDestinations(t *testing.T) {
	f := New(Options{Archive: wing(), Engine: &answers{}, Registry: registry(t,
		AE{Title: "DEST", Hosts: []string{"10.0.0.1"}, Port: 104},
		AE{Title: "DEAF", Hosts: []string{"10.0.0.2"}},
		AE{Title: "SECURE", Hosts: []string{"10.0.0.3"}, Port: 104, TLS: true},
	)})
	s := sessionOf(f, AE{Title: "X"})
	for destination, status := range map[string]command.Status{
		"DEST": command.Success, " DEST ": command.Success,
		"NOBODY": dimse.MoveDestinationUnknown, "dest": dimse.MoveDestinationUnknown, "": dimse.MoveDestinationUnknown,
		"DEAF": dimse.MoveDestinationUnknown, "SECURE": dimse.MoveDestinationUnknown,
	} {
		retrieval, err := s.Move(context.Background(), &scp.RetrieveRequest{
			Root: dimse.StudyRoot, Destination: destination, Identifier: identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {"1"}}),
		})
		if got, _ := dimse.StatusOf(dimse.Move, err); got != status {
			t.Errorf("to %q: %v, want %v", destination, got, status)
		}
		if err == nil && (retrieval.Total != 4 || retrieval.Connect == nil) {
			t.Errorf("to %q: %+v", destination, retrieval)
		}
	}
}

// What cannot be converted fails alone: once bytes of a data set are out, only
// the end of the association could take them back.
func TestWhatCannotBeConvertedFailsBeforeItIsSent(t *testing.T) {
	in := dimsetest.CT(1, 1)
	data := in.Dataset()
	at := bytes.Index(data, []byte{0xE0, 0x7F, 0x10, 0x00})
	odd := append(bytes.Clone(data[:at]), 0xE0, 0x7F, 0x10, 0, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF,
		0xFE, 0xFF, 0, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0)
	for name, test := range map[string]struct {
		data []byte
		kind fault.Kind
	}{"native": {data, fault.Other}, "encapsulated in an uncompressed syntax": {odd, fault.Unsupported}} {
		ref := archive.Ref{Syntax: dict.ExplicitLittleEndian, Bytes: int64(len(test.data))}
		r, err := convert(held{ref, test.data}, dict.ImplicitLittleEndian)
		if test.kind != fault.Other {
			if !fault.Is(err, test.kind) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n == 0 {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRetrievesAreAudited(t *testing.T) {
	var l ledger
	s := sessionOf(New(Options{Archive: wing(), Engine: &answers{}, Audit: l.add, Registry: registry(t)}), AE{Title: "X"})
	get := func(keys map[dict.Tag][]string, outcome scp.Outcome) error {
		r, err := s.Get(context.Background(), &scp.RetrieveRequest{Root: dimse.StudyRoot, Identifier: identifier("STUDY", keys)})
		if err == nil {
			r.Finished(outcome)
		}
		return err
	}
	if err := get(map[dict.Tag][]string{dict.StudyInstanceUID: {"1", "3"}}, scp.Outcome{Completed: 8}); err != nil {
		t.Fatal(err)
	}
	sent := l.of(Sent)
	if len(sent) != 2 || sent[0].Study != "1" || sent[0].Patient != "P1" || sent[0].Instances != 4 || sent[0].Failed ||
		sent[1].Study != "3" || sent[1].Patient != "P2" {
		t.Errorf("audited as %+v", sent)
	}
	if err := get(map[dict.Tag][]string{dict.StudyInstanceUID: {"1"}}, scp.Outcome{Completed: 3, Failed: 1}); err != nil {
		t.Fatal(err)
	}
	if sent = l.of(Sent); len(sent) != 3 || !sent[2].Failed {
		t.Errorf("a failure is audited as %+v", sent[2])
	}
	if err := get(map[dict.Tag][]string{dict.StudyInstanceUID: {"9"}}, scp.Outcome{}); err != nil {
		t.Fatal(err)
	}
	if err := get(nil, scp.Outcome{}); !fault.Is(err, fault.Mismatch) {
		t.Error(err)
	}
	if _, err := s.Move(context.Background(), &scp.RetrieveRequest{
		Root: dimse.StudyRoot, Destination: "NOBODY", Identifier: identifier("STUDY", map[dict.Tag][]string{dict.StudyInstanceUID: {"1"}}),
	}); err == nil {
		t.Error("moved to nobody")
	}
	none := l.of(Retrieved)
	if len(none) != 3 || none[0].Failed || !none[1].Failed || !none[2].Failed || none[2].Destination != "NOBODY" || len(none[2].Query) == 0 {
		t.Errorf("what sent nothing is audited as %+v", none)
	}
}

func TestStoresPassTheSenderOnAndAreAccountedForByStudy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger
		ended := &endings{}
		m := &memory{store: func(in archive.Incoming) (archive.Stored, error) {
			if in.Instance == "bad" {
				return archive.Stored{}, fault.New(fault.Invalid, "no data set")
			}
			return archive.Stored{Ref: archive.Ref{Study: "1." + in.Instance[:1]}, Patient: "P" + in.Instance[:1]}, nil
		}}
		f := New(Options{Archive: m, Audit: l.add, Arrivals: ended, Registry: registry(t, AE{
			Title: "CT1", Hosts: []string{"127.0.0.1"}, Rights: Rights{Echo: true, Store: true}, Issuer: "NORTH", Charset: "ISO_IR 100",
		})})
		listener := serve(t, &scp.Server{Admit: f})
		client, err := scu.Dial(t.Context(), target(listener, "CT1"), scu.Proposal{Contexts: scu.StorePlan([]scu.Kind{{Class: dimsetest.CTImageStorage, Syntax: dict.ExplicitLittleEndian}})[0]})
		if err != nil {
			t.Fatal(err)
		}
		send := func(uid string) error {
			_, err := client.Send(t.Context(), scu.Instance{
				Class: dimsetest.CTImageStorage, UID: uid, Syntax: dict.ExplicitLittleEndian,
				Open: func(context.Context, string) (io.ReadCloser, error) {
					return io.NopCloser(bytes.NewReader([]byte{8, 0, 0x18, 0, 'U', 'I', 0, 0})), nil
				},
			}, scu.Originator{})
			return err
		}
		for _, uid := range []string{"1", "12", "2"} {
			if err := send(uid); err != nil {
				t.Fatal(err)
			}
		}
		var status *dimse.StatusError
		if err := send("bad"); !errors.As(err, &status) || status.Status != dimse.CannotUnderstand {
			t.Errorf("a broken data set: %v", err)
		}
		in := m.stored[0]
		if in.Sender.CallingAE != "CT1" || in.Sender.Issuer != "NORTH" || in.Sender.Charset != "ISO_IR 100" ||
			in.Sender.Remote != "127.0.0.1" || in.Class != dimsetest.CTImageStorage || in.Syntax != dict.ExplicitLittleEndian {
			t.Errorf("stored %+v", in)
		}
		if len(l.of(Stored)) != 0 {
			t.Errorf("audited one by one: %+v", l.of(Stored))
		}
		time.Sleep(tallyFor) // an association that stays open is accounted for nevertheless
		if err := send("3"); err != nil {
			t.Fatal(err)
		}
		events := l.of(Stored)
		if len(events) != 4 || len(ended.studies) != 0 {
			t.Fatalf("after a minute: %+v, ended %v", events, ended.studies)
		}
		if err := client.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := map[string]Event{
			"":    {Instances: 1, Failed: true},
			"1.1": {Instances: 2, Patient: "P1"}, "1.2": {Instances: 1, Patient: "P2"}, "1.3": {Instances: 1, Patient: "P3"},
		}
		for _, e := range l.of(Stored) {
			w := want[e.Study]
			if e.AE != "CT1" || e.Remote != "127.0.0.1" || e.Instances != w.Instances || e.Failed != w.Failed || e.Patient != w.Patient {
				t.Errorf("study %q is audited as %+v", e.Study, e)
			}
		}
		slices.Sort(ended.studies)
		if !slices.Equal(ended.studies, []string{"1.1", "1.2", "1.3"}) {
			t.Errorf("told at the end of the association: %v", ended.studies)
		}
	})
}

// target is how a client calls a face under a title.
func target(l *dimsetest.Listener, calling string) scu.Target {
	return scu.Target{Addr: "pelago:104", Called: "PELAGO", Calling: calling, Dialer: dialer(l)}
}

func TestTheTallyIsBounded(t *testing.T) {
	var tl tally
	now := time.Now()
	for i := range 3 * maxTally {
		tl.add(string(rune(0x4E00+i)), "P", "1.2", false, now)
	}
	events := tl.take(time.Time{})
	total := 0
	for _, e := range events {
		total += e.Instances
	}
	if len(events) != maxTally+1 || total != 3*maxTally {
		t.Errorf("%d events of %d instances", len(events), total)
	}
}
