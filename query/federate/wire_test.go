package federate

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/federate/federatepb"
)

func sampleQuestion(t testing.TB) []byte {
	keys := dicom.NewDataset()
	keys.Set(dict.ImageComments, dict.LT, "*bien*")
	b, err := encodeQuestion(query.Probe{Keys: keys, Match: []dict.Tag{dict.ImageComments}, Instances: []string{"5"}},
		[]query.Candidate{{Study: "1", Series: "1.1", First: true, After: "4", Return: []dict.Tag{dict.Rows}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzQuestion(f *testing.F) {
	f.Add(sampleQuestion(f))
	f.Add([]byte{8, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, candidates, err := decodeQuestion(b)
		if err != nil {
			if k := fault.KindOf(err); k != fault.Invalid && k != fault.Unsupported {
				t.Fatalf("%v", err)
			}
			return
		}
		again, err := encodeQuestion(p, candidates)
		if err != nil {
			return // keys that parse and do not encode are the matcher's to refuse
		}
		p2, candidates2, err := decodeQuestion(again)
		if err != nil || fmt.Sprintf("%+v", candidates2) != fmt.Sprintf("%+v", candidates) || len(p2.Keys.Elements) != len(p.Keys.Elements) {
			t.Fatalf("a question changes: %v", err)
		}
	})
}

func sampleFrames(t testing.TB) []byte {
	ds := dicom.NewDataset()
	ds.Set(dict.ImageComments, dict.LT, "bien")
	var b []byte
	for _, frame := range []*federatepb.Frame{{}, {Found: found(t, ds, 0, "5")}, {Found: found(t, nil, 1, "6")}, {End: true}} {
		var err error
		if b, err = appendFrame(b, frame); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func found(t testing.TB, ds *dicom.Dataset, candidate int, sops ...string) []*federatepb.Found {
	var all []*federatepb.Found
	for _, sop := range sops {
		f := query.Found{Candidate: candidate, Instance: query.Instance{SOP: sop}}
		if ds != nil {
			f.Header = &dicom.Header{Dataset: ds}
		}
		pb, err := encodeFound(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, pb)
	}
	return all
}

// readAll reads an answer about three series, of the last of which one instance
// is enough.
func readAll(b []byte) (taken []query.Found, err error) {
	s := &stream{candidates: make([]query.Candidate, 3)}
	s.candidates[2].First = true
	for r := bufio.NewReader(bytes.NewReader(b)); ; {
		frame, err := readFrame(r)
		if err != nil {
			return taken, err
		}
		err = s.take(frame, 0, func(f query.Found) bool { taken = append(taken, f); return true })
		if err != nil || frame.End {
			return taken, err
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(sampleFrames(f))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		taken, _ := readAll(b)
		for i := 1; i < len(taken); i++ {
			before, f := taken[i-1], taken[i]
			if f.Candidate < before.Candidate || f.Candidate > 2 || f.Candidate == before.Candidate && f.Instance.SOP <= before.Instance.SOP {
				t.Fatalf("%+v after %+v", f, before)
			}
		}
	})
}

func FuzzLocated(f *testing.F) {
	f.Add([]byte{10, 9, 10, 1, '1', 18, 1, '2', 26, 1, '3'})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeLocated(b, "n")
		if err != nil && !fault.Is(err, fault.Protocol) {
			t.Fatal(err)
		}
		for _, i := range all {
			if i.Study == "" || i.Series == "" || i.SOP == "" || i.Origin != "n" {
				t.Fatalf("%+v", i)
			}
		}
	})
}

func TestAnswersThatAreNoneAreRefused(t *testing.T) {
	frames := func(all ...*federatepb.Frame) []byte {
		var b []byte
		for _, f := range all {
			var err error
			if b, err = appendFrame(b, f); err != nil {
				t.Fatal(err)
			}
		}
		return b
	}
	end := &federatepb.Frame{End: true}
	frame := func(candidate int, sops ...string) *federatepb.Frame {
		return &federatepb.Frame{Found: found(t, nil, candidate, sops...)}
	}
	for _, tt := range []struct {
		name string
		b    []byte
		want int
		kind fault.Kind
	}{
		{"in order", frames(frame(0, "1", "2"), frame(1, "1"), frame(2, "1"), end), 4, fault.Other},
		{"nothing", frames(end), 0, fault.Other},
		{"without an end", frames(frame(0, "1")), 1, fault.Unavailable},
		{"an instance twice", frames(frame(0, "1", "1"), end), 1, fault.Protocol},
		{"instances in the wrong order", frames(frame(0, "2"), frame(0, "1"), end), 1, fault.Protocol},
		{"series in the wrong order", frames(frame(1, "1"), frame(0, "1"), end), 1, fault.Protocol},
		{"a series that was not asked about", frames(frame(3, "1"), end), 0, fault.Protocol},
		{"more than the first", frames(frame(2, "1", "2"), end), 1, fault.Protocol},
		{"no instance", frames(frame(0, ""), end), 0, fault.Protocol},
		{"a header that is none", frames(&federatepb.Frame{Found: []*federatepb.Found{{Sop: "1", Header: []byte{1, 2, 3}}}}, end), 0, fault.Protocol},
		{"a failure", frames(&federatepb.Frame{Fault: uint32(fault.Corrupt), Text: "x"}), 0, fault.Corrupt},
		{"a failure of a kind to come", frames(&federatepb.Frame{Fault: 1 << 20, Text: "x"}), 0, fault.Other},
		{"a frame that claims too much", []byte{0xff, 0xff, 0xff, 0xff, 0x0f}, 0, fault.Protocol},
	} {
		taken, err := readAll(tt.b)
		if len(taken) != tt.want || fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %d found, %v; want %d, %v", tt.name, len(taken), err, tt.want, tt.kind)
		}
	}
}

func TestQuestionsThatAreNoneAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		kind fault.Kind
	}{
		{"a later version", []byte{8, 2}, fault.Unsupported},
		{"no version", nil, fault.Unsupported},
		{"noise", []byte{0xff}, fault.Invalid},
		{"keys that are no data set", []byte{8, 1, 18, 3, 1, 2, 3}, fault.Invalid},
		{"a series without a name", []byte{8, 1, 90, 0}, fault.Invalid},
	} {
		if _, _, err := decodeQuestion(tt.b); fault.KindOf(err) != tt.kind {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.kind)
		}
	}
	if _, err := encodeQuestion(query.Probe{Instances: []string{string(make([]byte, maxQuestion))}}, nil); !fault.Is(err, fault.Mismatch) {
		t.Errorf("a question that is too long: %v", err)
	}
}
