package far_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/fault"
	"pelago/node/archive/archivepb"
	"pelago/node/far"
	"pelago/node/far/farpb"
	"pelago/shard/seal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// told answers every request with the same bytes.
type told []byte

func (b told) Send(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(b)), Request: r}, nil
}

// naive opens what is sealed to it by looking at it.
type naive struct{}

func (naive) ID() string { return "naive" }

func (naive) Unseal(_, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return nil, fault.New(fault.Corrupt, "nothing is sealed")
	}
	return sealed, nil
}

// hear opens a series of which a peer tells in these bytes.
func hear(ctx context.Context, stream []byte, want far.Want) (*far.Manifest, error) {
	c := far.NewClient(far.Options{Calls: told(stream), Self: naive{}})
	defer c.Close()
	o, err := c.Open(ctx, "peer", want)
	if err != nil {
		return nil, err
	}
	return o.Manifest(ctx)
}

// tale is a manifest in the making.
type tale struct {
	part farpb.Part
	end  farpb.End
}

func sealedKey() []byte { return bytes.Repeat([]byte{7}, 32) }

// honest is a manifest of two instances in a pack and one that is staged.
func honest() *tale {
	plain := int64(3000)
	record := func(n uint64) *archivepb.Instance {
		return &archivepb.Instance{
			Version: 1, Number: n, Study: "1.2", Series: "1.2.3", Sop: fmt.Sprintf("1.2.3.%d", n), Class: "1.2.840.10008.5.1.4.1.1.2",
			Syntax: "1.2.840.10008.1.2.1", Bytes: 1000, Hash: bytes.Repeat([]byte{byte(n)}, 32), CallingAe: "CT",
		}
	}
	return &tale{
		part: farpb.Part{
			Keys: []*farpb.Key{{Id: bytes.Repeat([]byte{2}, 16), Sealed: sealedKey()}},
			Packs: []*farpb.Pack{{
				Id: bytes.Repeat([]byte{1}, 16), Bytes: seal.Size(plain), Plaintext: plain, Manifest: 2000,
				Root: bytes.Repeat([]byte{3}, 32), Key: bytes.Repeat([]byte{2}, 16), Instances: 2,
			}},
			Instances: []*farpb.Instance{
				{Record: record(1), Header: []byte("header 1"), Pack: 1, Chunks: []*archivepb.Chunk{
					{Offset: 0, Length: 400, At: 0, Compressed: 100}, {Offset: 400, Length: 600, At: 100, Compressed: 600, Filter: 3,
						Samples: &archivepb.Samples{Offset: 400, Length: 600, Width: 10, Bytes: 2, Stride: 1}},
				}},
				{Record: record(2), Header: []byte("header 2"), Pack: 1, Chunks: []*archivepb.Chunk{{Offset: 0, Length: 1000, At: 700, Compressed: 1000}}},
				{Record: record(3), Header: []byte("header 3")},
			},
		},
		end: farpb.End{Packs: 1, Instances: 3},
	}
}

// encode is the stream that tells it.
func (t *tale) encode(tb testing.TB) []byte {
	tb.Helper()
	options := proto.MarshalOptions{Deterministic: true}
	raw, err := options.Marshal(&t.part)
	if err != nil {
		tb.Fatal(err)
	}
	end, err := options.Marshal(&t.end)
	if err != nil {
		tb.Fatal(err)
	}
	return far.AppendMessage(partMessage(tb, []byte(far.StreamMagic), raw), far.MessageEnd, end)
}

// encoder compresses parts; it is costly to make.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return e
})

func partMessage(tb testing.TB, b, raw []byte) []byte {
	tb.Helper()
	return far.AppendMessage(b, far.MessagePart, binary.BigEndian.AppendUint32(nil, uint32(len(raw))), encoder().EncodeAll(raw, nil))
}

// What was sent by the first version is understood for ever.
func TestTheGoldenManifestIsUnderstood(t *testing.T) {
	path := filepath.Join("testdata", "manifest_v1.golden")
	if *update {
		if err := os.WriteFile(path, honest().encode(t), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := hear(t.Context(), stream, far.Want{Study: "1.2", Series: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	want := &honest().part
	if len(m.Packs) != 1 || len(m.Instances) != 3 || m.Node != "peer" {
		t.Fatalf("%d packs, %d instances", len(m.Packs), len(m.Instances))
	}
	p := m.Packs[0]
	if !bytes.Equal(p.ID[:], want.Packs[0].Id) || p.Bytes != seal.Size(3000) || p.Manifest != 2000 || p.Root[0] != 3 ||
		p.KeyID[0] != 2 || !bytes.Equal(p.Key[:], sealedKey()) || p.Instances != 2 || p.Series != "1.2.3" {
		t.Errorf("pack %+v", p)
	}
	for i, in := range m.Instances {
		if !proto.Equal(in.Record, want.Instances[i].Record) || !bytes.Equal(in.Header, want.Instances[i].Header) ||
			in.Pack != int(want.Instances[i].Pack)-1 || len(in.Chunks) != len(want.Instances[i].Chunks) {
			t.Errorf("instance %d: %+v", i, in)
		}
	}
	if c := m.Instances[0].Chunks[1]; c.At != 100 || c.Filter != 3 || c.Samples.Width != 10 {
		t.Errorf("chunk %+v", c)
	}
}

func TestALyingManifestIsRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		lie  func(t *tale)
		kind fault.Kind
	}{
		{"another study", func(t *tale) { t.part.Instances[1].Record.Study = "1.9" }, fault.Invalid},
		{"another series", func(t *tale) { t.part.Instances[1].Record.Series = "1.9" }, fault.Invalid},
		{"no record", func(t *tale) { t.part.Instances[2].Record = nil }, fault.Invalid},
		{"newer record", func(t *tale) { t.part.Instances[2].Record.Version = 2 }, fault.Unsupported},
		{"no UID", func(t *tale) { t.part.Instances[2].Record.Sop = "" }, fault.Invalid},
		{"long UID", func(t *tale) {
			t.part.Instances[2].Record.Sop = "1.23456789012345678901234567890123456789012345678901234567890123456789"
		}, fault.Invalid},
		{"UID with a zero", func(t *tale) { t.part.Instances[2].Record.Sop = "1.2\x003" }, fault.Invalid},
		{"instance twice", func(t *tale) { t.part.Instances[1].Record.Sop = t.part.Instances[0].Record.Sop }, fault.Invalid},
		{"short hash", func(t *tale) { t.part.Instances[0].Record.Hash = []byte{1} }, fault.Invalid},
		{"negative size", func(t *tale) { t.part.Instances[2].Record.Bytes = -1 }, fault.Invalid},
		{"endless size", func(t *tale) { t.part.Instances[2].Record.Bytes = 1 << 60 }, fault.Invalid},
		{"quarantined", func(t *tale) { t.part.Instances[0].Record.State = archivepb.State_QUARANTINED }, fault.Invalid},
		{"long text", func(t *tale) { t.part.Instances[0].Record.User = string(make([]byte, 2000)) }, fault.Invalid},
		{"pack that did not come", func(t *tale) { t.part.Instances[0].Pack = 2 }, fault.Invalid},
		{"huge pack number", func(t *tale) { t.part.Instances[0].Pack = 1<<32 - 1 }, fault.Invalid},
		{"chunks without a pack", func(t *tale) { t.part.Instances[0].Pack = 0 }, fault.Invalid},
		{"lost in its pack", func(t *tale) { t.part.Instances[0].Lost = true }, fault.Invalid},
		{"no chunks", func(t *tale) { t.part.Instances[0].Chunks = nil }, fault.Invalid},
		{"chunk missing", func(t *tale) { t.part.Instances[0].Chunks = t.part.Instances[0].Chunks[:1] }, fault.Invalid},
		{"chunk gap", func(t *tale) { t.part.Instances[0].Chunks[1].Offset = 401 }, fault.Invalid},
		{"chunk in the pack's manifest", func(t *tale) { t.part.Instances[1].Chunks[0].At = 1001 }, fault.Invalid},
		{"chunk far behind", func(t *tale) { t.part.Instances[1].Chunks[0].At = 1<<63 - 1 }, fault.Invalid},
		{"chunk before", func(t *tale) { t.part.Instances[1].Chunks[0].At = -1 }, fault.Invalid},
		{"chunk that grows", func(t *tale) { t.part.Instances[1].Chunks[0].Compressed = 1001 }, fault.Invalid},
		{"filter", func(t *tale) { t.part.Instances[1].Chunks[0].Filter = 256 }, fault.Invalid},
		{"pack twice", func(t *tale) { t.part.Packs = append(t.part.Packs, t.part.Packs[0]); t.end.Packs++ }, fault.Invalid},
		{"pack of another size", func(t *tale) { t.part.Packs[0].Bytes++ }, fault.Invalid},
		{"pack of no size", func(t *tale) { t.part.Packs[0].Plaintext = -1 }, fault.Invalid},
		{"manifest outside the pack", func(t *tale) { t.part.Packs[0].Manifest = 3001 }, fault.Invalid},
		{"no root", func(t *tale) { t.part.Packs[0].Root = nil }, fault.Invalid},
		{"no id", func(t *tale) { t.part.Packs[0].Id = nil }, fault.Invalid},
		{"key that did not come", func(t *tale) { t.part.Keys = nil }, fault.Invalid},
		{"key twice", func(t *tale) { t.part.Keys = append(t.part.Keys, t.part.Keys[0]) }, fault.Invalid},
		{"key that does not open", func(t *tale) { t.part.Keys[0].Sealed = nil }, fault.Invalid},
		{"short key", func(t *tale) { t.part.Keys[0].Sealed = []byte{1} }, fault.Invalid},
		{"too few", func(t *tale) { t.end.Instances++ }, fault.Invalid},
		{"too many", func(t *tale) { t.end.Instances-- }, fault.Invalid},
		{"none", func(t *tale) { t.part.Instances, t.end.Instances = nil, 0 }, fault.Invalid},
	} {
		lie := honest()
		test.lie(lie)
		if m, err := hear(t.Context(), lie.encode(t), far.Want{Study: "1.2", Series: "1.2.3"}); !fault.Is(err, test.kind) {
			t.Errorf("%s: %v, %v, want %v", test.name, m, err, test.kind)
		}
	}
	if _, err := hear(t.Context(), honest().encode(t), far.Want{SOP: "1.2.3.2"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("another instance first: %v", err)
	}
	if m, err := hear(t.Context(), honest().encode(t), far.Want{SOP: "1.2.3.1"}); err != nil || m.Series != "1.2.3" {
		t.Errorf("by the first instance: %v", err)
	}
}

func TestABrokenStreamIsRefused(t *testing.T) {
	whole := honest().encode(t)
	for n := range whole {
		if _, err := hear(t.Context(), whole[:n], far.Want{Study: "1.2", Series: "1.2.3"}); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("cut off at %d: %v", n, err)
		}
	}
	raw, err := proto.Marshal(&honest().part)
	if err != nil {
		t.Fatal(err)
	}
	pack := bytes.Repeat([]byte{1}, 16)
	begun := partMessage(t, []byte(far.StreamMagic), raw)
	for _, test := range []struct {
		name   string
		stream []byte
		kind   fault.Kind
	}{
		{"newer", append([]byte("PelFarM\x02"), whole[8:]...), fault.Unsupported},
		{"other", append([]byte("PelFaRM\x01"), whole[8:]...), fault.Invalid},
		{"unknown message", far.AppendMessage([]byte(far.StreamMagic), 99, nil), fault.Invalid},
		{"long message", append([]byte(far.StreamMagic), far.MessagePart, 0xFF, 0xFF, 0xFF, 0xFF), fault.Invalid},
		{"part that is longer than it says", far.AppendMessage([]byte(far.StreamMagic), far.MessagePart, []byte{0, 0, 0, 1}, partMessage(t, nil, raw)[9:]), fault.Invalid},
		{"part of nothing", far.AppendMessage([]byte(far.StreamMagic), far.MessagePart, nil), fault.Invalid},
		{"bomb", partMessage(t, []byte(far.StreamMagic), make([]byte, 18<<20)), fault.Invalid},
		{"end at once", far.AppendMessage([]byte(far.StreamMagic), far.MessageEnd, nil), fault.Invalid},
		{"frame at once", far.AppendMessage([]byte(far.StreamMagic), far.MessageFrame), fault.Invalid},
		{"bytes of nothing", far.AppendMessage(bytes.Clone(begun), far.MessagePack, make([]byte, 24)), fault.Invalid},
		{"bytes behind the pack", far.AppendMessage(bytes.Clone(begun), far.MessagePack, pack, []byte{0, 0, 0, 0, 0, 0, 0, 1}, []byte("bytes")), fault.Invalid},
		{"bytes before the pack", far.AppendMessage(bytes.Clone(begun), far.MessagePack, pack, []byte{0xFF, 0, 0, 0, 0, 0, 0, 1}, []byte("bytes")), fault.Invalid},
		{"bytes that do not authenticate", far.AppendMessage(bytes.Clone(begun), far.MessagePack, pack, make([]byte, 8), make([]byte, 3016)), fault.Corrupt},
		{"bytes of an instance that is packed", far.AppendMessage(bytes.Clone(begun), far.MessageStaged, []byte{0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 8), make([]byte, 1000)), fault.Invalid},
		{"failure of its own", far.AppendMessage(bytes.Clone(begun), far.MessageEnd+1, []byte{8, 8, 18, 1, 'x'}), fault.Unavailable},
		{"failure of a kind that is none", far.AppendMessage(bytes.Clone(begun), far.MessageEnd+1, []byte{8, 99}), fault.Other},
	} {
		if _, err := hear(t.Context(), test.stream, far.Want{Study: "1.2", Series: "1.2.3"}); err == nil || fault.KindOf(err) != test.kind {
			t.Errorf("%s: %v, want %v", test.name, err, test.kind)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(honest().encode(f))
	raw, err := proto.Marshal(&honest().part)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(far.AppendMessage(partMessage(f, []byte(far.StreamMagic), raw), far.MessagePack,
		bytes.Repeat([]byte{1}, 16), make([]byte, 8), make([]byte, 3016)))
	f.Add(far.AppendMessage([]byte(far.StreamMagic), far.MessageEnd, nil))
	f.Fuzz(func(t *testing.T, stream []byte) {
		m, err := hear(t.Context(), stream, far.Want{Study: "1.2", Series: "1.2.3"})
		if err != nil {
			return
		}
		if len(m.Instances) == 0 || m.Study != "1.2" {
			t.Fatal("a manifest of nothing")
		}
		for _, in := range m.Instances {
			if in.Pack >= len(m.Packs) || in.Record == nil || in.Entry().Bytes != in.Record.Bytes {
				t.Fatal("an instance of nothing")
			}
		}
	})
}

// FuzzPart mutates what is inside, where FuzzManifest hardly gets.
func FuzzPart(f *testing.F) {
	raw, err := proto.Marshal(&honest().part)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, uint32(1), uint32(3))
	f.Fuzz(func(t *testing.T, raw []byte, packs, instances uint32) {
		if len(raw) > 1<<20 {
			return
		}
		end, err := proto.Marshal(&farpb.End{Packs: packs, Instances: instances})
		if err != nil {
			t.Fatal(err)
		}
		stream := far.AppendMessage(partMessage(t, []byte(far.StreamMagic), raw), far.MessageEnd, end)
		c := far.NewClient(far.Options{Calls: told(stream), Self: naive{}})
		defer c.Close()
		m, err := c.Series(t.Context(), "peer", "1.2", "1.2.3")
		if err != nil {
			return
		}
		// Readers of whatever is believed neither panic nor hang.
		s := c.Read(m)
		for i := range m.Instances {
			_, _ = readInstance(t.Context(), s, m, i)
		}
	})
}

func FuzzRange(f *testing.F) {
	f.Add("bytes=0-16399", int64(20000), int64(16400))
	f.Add("bytes=16400-19999", int64(20000), int64(16400))
	f.Add("bytes=-5", int64(20000), int64(16384))
	f.Fuzz(func(t *testing.T, text string, size, unit int64) {
		if size < 0 || size > 1<<50 || unit < 1 || unit > 1<<20 {
			return
		}
		from, to, err := far.ParseRange(text, size, unit)
		if err != nil {
			return
		}
		if from < 0 || from >= to || to > size || from%unit != 0 || to%unit != 0 && to != size {
			t.Fatalf("%q of %d is %d to %d", text, size, from, to)
		}
	})
}

// FuzzOpen asks a handler for whatever.
func FuzzOpen(f *testing.F) {
	s := newShelf(f, 2, 16, 1<<20)
	net := newNetwork()
	origin, asker := net.plain(f, "A", s), net.plain(f, "B", nil)
	b, err := proto.Marshal(&farpb.Open{Sop: s.holdings[0].Record.Sop, Frame: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+origin.self.ID()+"/archive/open", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := wire{asker}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if n, err := io.Copy(io.Discard, answer.Body); err != nil || n == 0 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
