package far

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
	"pelago/dimse/dicom"
	"pelago/node/archive/archivepb"
	"pelago/node/far/farpb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// open answers POST /archive/open.
func (h *Handler) open(w *reply) (err error) {
	access := Access{Peer: w.peer}
	defer func() {
		access.Err = err
		h.o.Audit(w.ctx, access)
	}()
	body, err := call.Read(w.r.Body, maxOpen)
	if err != nil {
		return err
	}
	var asked farpb.Open
	if err := parse(body, &asked); err != nil {
		return err
	}
	access.Study, access.Series, access.SOP = asked.Study, asked.Series, asked.Sop
	if (asked.Study == "" || asked.Series == "") && (asked.Sop == "" || asked.Study != "" || asked.Series != "") {
		return fault.New(fault.Invalid, "far: neither a series nor an instance")
	}
	source, err := h.source(w.ctx, &asked)
	if err != nil {
		return err
	}
	first, err := first(w.ctx, source, &asked)
	if err != nil {
		return err
	}
	access.Study, access.Series = first.Record.Study, first.Record.Series
	t := telling{
		handler: h, source: source, w: w, keys: map[[16]byte]bool{}, packs: map[pack.ID]uint32{},
		ahead:   newAhead(&asked),
		encoder: h.encoders.Get().(*zstd.Encoder),
	}
	defer h.encoders.Put(t.encoder)
	defer func() { access.Instances = int(t.instances) }()
	if err = t.tell(first, &asked); err != nil && w.began {
		return t.fail(err)
	}
	return err
}

// source is what is asked for: what this node holds, or what another told it.
func (h *Handler) source(ctx context.Context, asked *farpb.Open) (Source, error) {
	if asked.Origin == "" {
		return h.o.Source, nil
	}
	if asked.Study == "" {
		return nil, fault.New(fault.Invalid, "far: what a node told is asked for by its series")
	}
	m, err := h.o.Told(ctx, asked.Origin, asked.Study, asked.Series)
	if err != nil {
		return nil, err
	}
	return newRetold(h.o.Source, m), nil
}

// first is the instance that is wanted, or the series' first.
func first(ctx context.Context, source Source, asked *farpb.Open) (Holding, error) {
	for one, err := range source.Holdings(ctx, asked.Study, asked.Series, asked.Sop) {
		return one, err
	}
	return Holding{}, fault.New(fault.NotFound, "far: no such series or instance")
}

// telling is an answer in the making.
type telling struct {
	handler   *Handler
	source    Source
	w         *reply
	encoder   *zstd.Encoder
	keys      map[[16]byte]bool  // told
	packs     map[pack.ID]uint32 // told, numbered from 1
	instances uint32
	part      farpb.Part
	bytes     int   // of the part, about
	raw       int64 // of the parts sent
	ahead     ahead
}

// tell tells of the wanted instance, of its bytes those that are wanted, and of
// the others.
func (t *telling) tell(first Holding, asked *farpb.Open) error {
	if err := t.add(first); err != nil {
		return err
	}
	out, err := t.encode([]byte(streamMagic))
	if err != nil {
		return err
	}
	if err := t.write(out); err != nil {
		return err
	}
	if runs := wantedRuns(first, asked); len(runs) > 0 {
		// What cannot be read says so to who reads it, and is no other instance's trouble.
		if err := t.runs(first, runs); err != nil && (t.w.ctx.Err() != nil || fault.Is(err, fault.Canceled)) {
			return err
		}
	}
	if asked.Frame > 0 || asked.Bytes > 0 && asked.Sop != "" {
		if err := t.write(appendMessage(nil, messageFrame)); err != nil {
			return err
		}
	}
	if err := t.w.flush(); err != nil {
		return errGone(err)
	}
	if err := t.rest(first); err != nil {
		return err
	}
	end, err := proto.Marshal(&farpb.End{Packs: uint32(len(t.packs)), Instances: t.instances})
	if err != nil {
		return err
	}
	if err := t.write(appendMessage(t.ahead.announce(nil), messageEnd, end)); err != nil {
		return err
	}
	return t.sendAhead()
}

// rest tells of all others.
func (t *telling) rest(first Holding) error {
	for one, err := range t.source.Holdings(t.w.ctx, first.Record.Study, first.Record.Series, "") {
		if err != nil {
			if fault.Is(err, fault.NotFound) { // all were deleted meanwhile
				return nil
			}
			return err
		}
		if one.Record.Number == first.Record.Number {
			continue
		}
		if err := t.add(one); err != nil {
			return err
		}
		if t.bytes < partBytes {
			continue
		}
		out, err := t.encode(nil)
		if err != nil {
			return err
		}
		if err := t.write(out); err != nil {
			return err
		}
		if err := t.w.flush(); err != nil {
			return errGone(err)
		}
	}
	if len(t.part.Instances) == 0 {
		return nil
	}
	out, err := t.encode(nil)
	if err != nil {
		return err
	}
	return t.write(out)
}

// fail tells why the manifest ends here, to who is still there.
func (t *telling) fail(err error) error {
	text := err.Error()
	b, merr := proto.Marshal(&farpb.Failure{
		Kind: uint32(fault.KindOf(err)), Text: strings.ToValidUTF8(text[:min(len(text), maxText)], ""),
	})
	if merr != nil {
		return errors.Join(err, merr)
	}
	t.w.told = t.write(appendMessage(nil, messageFailure, b)) == nil
	return err
}

// add puts an instance into the part, and before it its pack and its key. One whose
// pack is lost is told of as lost: left out it would be missed by nobody.
func (t *telling) add(one Holding) error {
	in := &farpb.Instance{Record: one.Record}
	if len(one.Header) <= maxHeader {
		in.Header = one.Header
	}
	if len(one.Location.Pack) > 0 {
		if len(one.Location.Pack) != len(pack.ID{}) {
			return fault.New(fault.Corrupt, "far: a pack's id of %d bytes", len(one.Location.Pack))
		}
		place, err := t.packOf(pack.ID(one.Location.Pack))
		switch {
		case err == nil:
			in.Pack, in.Chunks = place, one.Location.Chunks
			t.ahead.add(one.Record.Number, pack.ID(one.Location.Pack), one.Location.Chunks)
		case fault.Is(err, fault.Corrupt):
			in.Lost = true
		default:
			return err
		}
	}
	if t.instances++; t.instances > maxInstances {
		return fault.New(fault.Unsupported, "far: a series of over %d instances", maxInstances)
	}
	t.part.Instances = append(t.part.Instances, in)
	t.bytes += 512 + len(in.Header) + 32*len(in.Chunks)
	return nil
}

// packOf returns the place of a pack, having told of it.
func (t *telling) packOf(id pack.ID) (uint32, error) {
	if place, ok := t.packs[id]; ok {
		return place, nil
	}
	p, bytes, err := t.source.Ciphertext(id)
	if err != nil {
		return 0, err
	}
	if h := t.handler; bytes != nil && len(h.spread.holders(id, p.BlobBytes, t.w.peer, h.slots.busy())) == 0 {
		t.ahead.packs[id] = bytes
	}
	if len(p.Key) != len([16]byte{}) {
		return 0, fault.New(fault.Corrupt, "far: a key's id of %d bytes", len(p.Key))
	}
	if err := t.key([16]byte(p.Key)); err != nil {
		return 0, err
	}
	if len(t.packs) == maxPacks {
		return 0, fault.New(fault.Unsupported, "far: a series of over %d packs", maxPacks)
	}
	place := uint32(len(t.packs) + 1)
	t.packs[id] = place
	t.part.Packs = append(t.part.Packs, &farpb.Pack{
		Id: p.Id, Bytes: p.BlobBytes, Plaintext: p.Plaintext, Manifest: p.Manifest,
		Root: p.Root, Key: p.Key, Instances: p.Instances,
	})
	t.bytes += 128
	return place, nil
}

// key seals a study key to the asker, once.
func (t *telling) key(id [16]byte) error {
	if t.keys[id] {
		return nil
	}
	to, err := t.handler.o.Members.SealingKey(t.w.peer.Node)
	if err != nil {
		return err
	}
	study, err := t.source.StudyKey(id)
	if err != nil {
		return err
	}
	sealed, err := identity.SealTo(to, keyInfo(id, t.w.peer.Node), study[:])
	if err != nil {
		return err
	}
	t.keys[id] = true
	t.part.Keys = append(t.part.Keys, &farpb.Key{Id: id[:], Sealed: sealed})
	t.bytes += 128
	return nil
}

// encode appends the part to b and begins the next.
func (t *telling) encode(b []byte) ([]byte, error) {
	raw, err := proto.Marshal(&t.part)
	if err != nil {
		return nil, err
	}
	t.part, t.bytes = farpb.Part{}, 0
	if t.raw += int64(len(raw)); len(raw) > maxPart || t.raw > maxManifest {
		return nil, fault.New(fault.Unsupported, "far: a manifest of over %d bytes", maxManifest)
	}
	length := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	return appendMessage(b, messagePart, length, t.encoder.EncodeAll(raw, nil)), nil
}

func (t *telling) write(b []byte) error {
	if _, err := t.w.Write(b); err != nil {
		return errGone(err)
	}
	return nil
}

func errGone(err error) error { return fault.New(fault.Canceled, "far: the asker is gone: %w", err) }

// runs sends the bytes of an instance that runs of it are read from: none if they
// are more than is worth waiting for, and up to where they are not here, or rotten.
func (t *telling) runs(one Holding, runs []dicom.Extent) error {
	if len(one.Location.Pack) == 0 {
		_, bytes, done, err := t.source.Stored(t.w.ctx, one.Record.Number, one.Record.Sop)
		if err != nil {
			return err
		}
		defer done() //nolint:errcheck // only read
		return t.units(bytes, runs, one.Record.Bytes, stagedBytes, func(unit int64) (byte, []byte) {
			return messageStaged, stagedHead(one.Record.Number, unit*stagedBytes)
		})
	}
	p, bytes, err := t.source.Ciphertext(pack.ID(one.Location.Pack))
	if err != nil || bytes == nil {
		return err
	}
	return t.units(bytes, packedRuns(one.Location.Chunks, runs), p.BlobBytes, segmentBytes, func(unit int64) (byte, []byte) {
		return messagePack, packHead(pack.ID(p.Id), unit)
	})
}

// wantedRuns returns the bytes of an instance that are wanted with it. Of a frame
// that it does not have there are none: the asker finds out from the header. Of a
// series only what is staged comes so; packs follow the manifest.
func wantedRuns(one Holding, asked *farpb.Open) (runs []dicom.Extent) {
	if asked.Frame > 0 {
		runs, _ = frameRuns(one, int(asked.Frame))
	}
	if n := min(asked.Bytes, maxPrefix, uint64(max(0, one.Record.Bytes))); n > 0 && (asked.Sop != "" || len(one.Location.Pack) == 0) {
		runs = append(runs, dicom.Extent{Length: int64(n)})
	}
	return runs
}

// frameRuns returns the bytes of an instance that a frame is read from.
func frameRuns(one Holding, number int) ([]dicom.Extent, error) {
	h, err := dicom.ParseHeader(one.Header)
	if err != nil {
		return nil, err
	}
	if h.Syntax.Deflated { // inflating begins at the beginning
		return []dicom.Extent{{Length: one.Record.Bytes}}, nil
	}
	frames, err := h.Frames()
	if err != nil {
		return nil, err
	}
	return frames.Runs(number)
}

// packedRuns returns the plaintext of the chunks that hold runs of an instance.
func packedRuns(chunks []*archivepb.Chunk, runs []dicom.Extent) (packed []dicom.Extent) {
	for _, run := range runs {
		for _, c := range chunks {
			if c.Offset < run.Offset+run.Length && run.Offset < c.Offset+c.Length {
				packed = append(packed, dicom.Extent{Offset: c.At, Length: c.Compressed})
			}
		}
	}
	return packed
}

// units sends the units that hold runs of plaintext, each once, in messages that
// head begins.
func (t *telling) units(bytes io.ReaderAt, runs []dicom.Extent, size, unit int64, head func(first int64) (byte, []byte)) error {
	var all []int64
	for _, run := range runs {
		for u := run.Offset / seal.SegmentBytes; u*seal.SegmentBytes < run.Offset+run.Length; u++ {
			if all = append(all, u); int64(len(all))*unit > maxFrame+maxPrefix {
				return nil
			}
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if int64(len(all))*unit > maxFrame {
		return nil
	}
	buffer := t.handler.buffers.Get().(*[]byte)
	defer t.handler.buffers.Put(buffer)
	for len(all) > 0 {
		n := 1
		for n < len(all) && n < unitsAtOnce && all[n] == all[0]+int64(n) {
			n++
		}
		at := all[0] * unit
		b := (*buffer)[:min(int64(n)*unit, size-at)]
		if got, err := bytes.ReadAt(b, at); got < len(b) {
			return readError(err)
		}
		kind, begin := head(all[0])
		if err := t.write(appendMessage(nil, kind, begin, b)); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}
