package federate

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/query"
	"pelago/query/federate/federatepb"
)

const wireVersion = 1

// Paths of the peer service.
const (
	findPath   = "/query/find"
	locatePath = "/query/locate"
)

const (
	// maxQuestion bounds a question: 4,096 series and 8,192 instances take 1.2 MiB.
	maxQuestion = 8 << 20
	// frameBytes is when a frame goes out, maxFrame what one may be: an instance
	// with the largest header that is stored (64 MiB), in UTF-8.
	frameBytes = 64 << 10
	maxFrame   = 96 << 20
	// maxLocated bounds where a question's instances are: a UID has one place, but
	// for mistakes.
	maxLocated = 2 * query.MaxCandidates
	maxUID     = 64
)

var explicit, _ = dict.Syntax(dict.ExplicitLittleEndian)

// encodeQuestion returns a question about candidates.
func encodeQuestion(p query.Probe, candidates []query.Candidate) ([]byte, error) {
	q := &federatepb.Question{
		Version: wireVersion, Fuzzy: p.Fuzzy, CombinedDateTime: p.CombinedDateTime, Timezone: p.Timezone, FoldText: p.FoldText,
		Match: numbers(p.Match), Return: numbers(p.Return), All: p.All, Instances: p.Instances,
	}
	if p.Keys != nil {
		var err error
		if q.Keys, err = p.Keys.Encode(nil, explicit); err != nil {
			return nil, fault.New(fault.Mismatch, "query: keys: %w", err)
		}
	}
	for _, c := range candidates {
		q.Candidates = append(q.Candidates, &federatepb.Candidate{Study: c.Study, Series: c.Series, Return: numbers(c.Return), First: c.First, After: c.After})
	}
	b, err := proto.Marshal(q)
	if err != nil {
		return nil, fault.New(fault.Mismatch, "query: a question that does not encode: %w", err)
	}
	if len(b) > maxQuestion {
		return nil, fault.New(fault.Mismatch, "query: a question of over %d bytes", maxQuestion)
	}
	return b, nil
}

// decodeQuestion reads what encodeQuestion wrote. fault.Unsupported for a later
// version, fault.Invalid for what is none.
func decodeQuestion(b []byte) (p query.Probe, candidates []query.Candidate, err error) {
	var q federatepb.Question
	if err := proto.Unmarshal(b, &q); err != nil {
		return p, nil, fault.New(fault.Invalid, "query: a question: %w", err)
	}
	if q.Version != wireVersion {
		return p, nil, fault.New(fault.Unsupported, "query: a question of version %d", q.Version)
	}
	if len(q.Candidates) > query.MaxCandidates {
		return p, nil, fault.New(fault.Invalid, "query: a question about %d series", len(q.Candidates))
	}
	p = query.Probe{
		Fuzzy: q.Fuzzy, CombinedDateTime: q.CombinedDateTime, Timezone: q.Timezone, FoldText: q.FoldText,
		Match: tags(q.Match), Return: tags(q.Return), All: q.All, Instances: q.Instances,
	}
	if p.Keys, err = dicom.ParseDataset(q.Keys, explicit, dicom.DefaultLimits); err != nil {
		return p, nil, fault.New(fault.Invalid, "query: the keys of a question: %w", err)
	}
	for _, c := range q.Candidates {
		if len(c.Study) > maxUID || len(c.Series) > maxUID || c.Study == "" || c.Series == "" {
			return p, nil, fault.New(fault.Invalid, "query: a question about no series")
		}
		candidates = append(candidates, query.Candidate{Study: c.Study, Series: c.Series, Return: tags(c.Return), First: c.First, After: c.After})
	}
	return p, candidates, nil
}

func numbers(tags []dict.Tag) []uint32 {
	all := make([]uint32, len(tags))
	for i, t := range tags {
		all[i] = uint32(t)
	}
	return all
}

func tags(numbers []uint32) []dict.Tag {
	all := make([]dict.Tag, len(numbers))
	for i, n := range numbers {
		all[i] = dict.Tag(n)
	}
	return all
}

// encodeFound returns an instance as frames carry it.
func encodeFound(f query.Found) (*federatepb.Found, error) {
	pb := &federatepb.Found{
		Candidate: uint32(f.Candidate), Sop: f.Instance.SOP, Class: f.Instance.Class, Syntax: f.Instance.Syntax,
		Number: f.Instance.Number, Bytes: f.Instance.Bytes, Availability: string(f.Availability),
	}
	if f.Header != nil {
		var err error
		if pb.Header, err = f.Header.Dataset.Encode(nil, explicit); err != nil {
			return nil, fault.New(fault.Corrupt, "query: attributes of an instance: %w", err)
		}
	}
	return pb, nil
}

// decodeFound reads what encodeFound wrote; fault.Protocol for what is none.
func decodeFound(pb *federatepb.Found) (query.Found, error) {
	f := query.Found{Candidate: int(pb.Candidate), Availability: availability(pb.Availability), Instance: query.Instance{
		SOP: pb.Sop, Class: pb.Class, Syntax: pb.Syntax, Number: pb.Number, Bytes: pb.Bytes,
	}}
	if pb.Sop == "" || len(pb.Sop) > maxUID || len(pb.Class) > maxUID || len(pb.Syntax) > maxUID || pb.Bytes < 0 {
		return f, fault.New(fault.Protocol, "query: a peer found what is no instance")
	}
	if len(pb.Header) == 0 {
		return f, nil
	}
	ds, err := dicom.ParseDataset(pb.Header, explicit, dicom.DefaultLimits)
	if err != nil {
		return f, fault.New(fault.Protocol, "query: attributes from a peer: %w", err)
	}
	f.Header = &dicom.Header{Syntax: explicit, Dataset: ds}
	return f, nil
}

func availability(s string) query.Availability {
	switch a := query.Availability(s); a {
	case query.Online, query.Nearline:
		return a
	case "":
		return query.Online
	}
	return query.Unavailable
}

// appendFrame appends a frame with its length.
func appendFrame(b []byte, f *federatepb.Frame) ([]byte, error) {
	size := proto.Size(f)
	if size > maxFrame {
		return b, fault.New(fault.Full, "query: a frame of %d bytes", size)
	}
	b = binary.AppendUvarint(b, uint64(size))
	b, err := proto.MarshalOptions{}.MarshalAppend(b, f)
	if err != nil {
		return b, fault.New(fault.Corrupt, "query: a frame: %w", err)
	}
	return b, nil
}

// readFrame reads a frame. A stream that ends before its last frame is
// fault.Unavailable, what is no frame fault.Protocol. Memory grows as bytes come,
// not as a length claims.
func readFrame(r *bufio.Reader) (*federatepb.Frame, error) {
	size, err := binary.ReadUvarint(r)
	if err == nil && size > maxFrame {
		return nil, fault.New(fault.Protocol, "query: a frame of %d bytes", size)
	}
	var body bytes.Buffer
	if err == nil {
		_, err = io.CopyN(&body, r, int64(size))
	}
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fault.New(fault.Unavailable, "query: an answer breaks off: %w", err)
	}
	var f federatepb.Frame
	if err := proto.Unmarshal(body.Bytes(), &f); err != nil {
		return nil, fault.New(fault.Protocol, "query: a frame: %w", err)
	}
	return &f, nil
}
