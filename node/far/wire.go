package far

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// The answer to an opening is a stream: the magic, then messages, each a kind, a
// length and so many bytes (docs/formats/peer.md).
const (
	streamMagic  = "PelFarM\x01" // the last byte is the version
	messageHead  = 1 + 4
	pathOpen     = "/archive/open"
	pathPack     = "/archive/pack/"
	pathStaged   = "/archive/staged/"
	insistQuery  = "insist"         // do not send me elsewhere
	aheadQuery   = "ahead"          // =N: nobody waits for it yet; send me what has a lower N first
	holderHeader = "Pelago-Holders" // nodes to ask instead, with status 204
)

// Kinds of messages.
const (
	messagePart    = 1 + iota // raw length (4), zstd of a farpb.Part
	messagePack               // pack id (16), number of the first segment (8), segments
	messageStaged             // local number (8), offset (8), bytes
	messageEnd                // farpb.End
	messageFailure            // farpb.Failure
	messageFrame              // nothing: the frame's bytes have come, or do not
	messageAhead              // what follows the end: pack id (16), number of the first unit (8), of units (4), each time
)

// Limits of what travels.
const (
	maxOpen      = 4 << 10   // bytes of a request
	maxHeader    = 16 << 20  // of a header record: pack manifests hold no longer ones
	maxPart      = 17 << 20  // of a part, decompressed
	partBytes    = 512 << 10 // a part is sent once it has so many
	maxManifest  = 256 << 20 // of all parts, decompressed
	maxInstances = 1 << 18   // of a series: a 4D series of 10,000 frames has a tenth
	maxPacks     = 1 << 16
	maxChunks    = 1 << 22
	maxFrame     = 32 << 20 // bytes sent for a frame: what is longer is read by ranges
	maxPrefix    = 16 << 20 // bytes sent of the beginning of an instance, or of a series
	maxRange     = 16 << 20 // bytes of one range
	maxText      = 512      // of a failure
	maxObject    = 1 << 50  // bytes of a pack or an instance

	segmentBytes = seal.LeafBytes    // a unit of a pack
	stagedBytes  = seal.SegmentBytes // a unit of a staged instance
	unitsAtOnce  = 16                // units of a block, and of a message

	aheadHead     = 16 + 8 + 4
	maxAheadUnits = maxPrefix / segmentBytes
)

// keyInfo is what a study key is sealed as, and to whom.
func keyInfo(id [16]byte, node string) []byte {
	return append(append([]byte("pelago study key to node v1\x00"), id[:]...), node...)
}

// appendMessage appends a message.
func appendMessage(b []byte, kind byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(n))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// packHead begins a message of bytes of a pack.
func packHead(id pack.ID, first int64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(nil), id[:]...), uint64(first))
}

// stagedHead begins a message of bytes of a staged instance.
func stagedHead(number uint64, offset int64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, number), uint64(offset))
}

// messages reads the messages of a stream.
type messages struct {
	r     io.Reader
	began bool
	raw   int64 // of the parts so far
	zstd  *zstd.Decoder
}

func (m *messages) close() {
	if m.zstd != nil {
		m.zstd.Close()
	}
}

// most is how long a message of a kind may be.
func most(kind byte) (uint32, bool) {
	switch kind {
	case messagePart:
		return maxPart + 1<<10, true
	case messagePack, messageStaged:
		return 32 + unitsAtOnce*segmentBytes, true
	case messageEnd, messageFailure:
		return 2 << 10, true
	case messageFrame:
		return 0, true
	case messageAhead:
		return maxAheadUnits * aheadHead, true
	}
	return 0, false
}

// next returns the next message. Its bytes are the caller's.
func (m *messages) next() (kind byte, body []byte, err error) {
	if !m.began {
		var magic [len(streamMagic)]byte
		if _, err := io.ReadFull(m.r, magic[:]); err != nil {
			return 0, nil, errBroken(err)
		}
		if last := len(magic) - 1; string(magic[:last]) != streamMagic[:last] {
			return 0, nil, errManifest("not a manifest")
		} else if magic[last] != streamMagic[last] {
			return 0, nil, fault.New(fault.Unsupported, "far: a manifest of version %d", magic[last])
		}
		m.began = true
	}
	var head [messageHead]byte
	if _, err := io.ReadFull(m.r, head[:]); err != nil {
		return 0, nil, errBroken(err)
	}
	length := binary.BigEndian.Uint32(head[1:])
	if limit, ok := most(head[0]); !ok || length > limit {
		return 0, nil, errManifest("a message of kind %d and %d bytes", head[0], length)
	}
	body, err = io.ReadAll(io.LimitReader(m.r, int64(length))) // grows with what comes
	if err == nil && len(body) < int(length) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, errBroken(err)
	}
	return head[0], body, nil
}

// inflate decompresses the body of a part, as a stream, so that memory follows
// the bytes that are really there.
func (m *messages) inflate(body []byte) ([]byte, error) {
	if len(body) < 4 {
		return nil, errManifest("a part that is cut off")
	}
	length := binary.BigEndian.Uint32(body)
	if m.raw += int64(length); length > maxPart || m.raw > maxManifest {
		return nil, errManifest("a manifest of over %d bytes", maxManifest)
	}
	in := bytes.NewReader(body[4:])
	if m.zstd == nil {
		d, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxPart), zstd.WithDecoderMaxMemory(maxPart))
		if err != nil {
			return nil, err
		}
		m.zstd = d
	} else if err := m.zstd.Reset(in); err != nil {
		return nil, errManifest("%w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(m.zstd, int64(length)+1))
	if err != nil || len(raw) != int(length) {
		return nil, errManifest("a part that does not decompress to what it says: %v", err)
	}
	return raw, nil
}

// errManifest is a manifest that no node of this version sends.
func errManifest(format string, args ...any) error {
	return fault.New(fault.Invalid, "far: "+format, args...)
}

// errBroken is a stream that breaks off.
func errBroken(err error) error {
	if fault.KindOf(err) == fault.Other {
		err = fault.New(fault.Unavailable, "far: the answer breaks off: %w", err)
	}
	return noEnd(err)
}

// noEnd is an error without an end of bytes in its tree, as connections give it that
// are closed: who reads data sets and packs by what comes would take it for theirs.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.KindOf(err), "%s", err.Error())
	}
	return err
}

// parse decodes a message; fault.Invalid.
func parse(b []byte, into proto.Message) error {
	if err := proto.Unmarshal(b, into); err != nil {
		return errManifest("%w", err)
	}
	return nil
}
