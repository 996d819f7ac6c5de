package far

import (
	"context"
	"io"

	"pelago/node/archive/archivepb"
	"pelago/shard/pack"
	"pelago/shard/seal"
)

// Want names what is to be opened: a series by Study and Series, or the series
// of an instance by SOP alone.
type Want struct {
	Study, Series string
	SOP           string // with Study and Series: the instance that should come first
	Frame         int    // from 1: its bytes come with the manifest; 0: none
	// Bytes is how many from the instance's beginning come with the manifest; without
	// SOP, how many of the series' first packed instances, as they rest, come after
	// it. 16 MiB at most.
	Bytes int64
	// Origin: not what the node that is asked holds of the series, but what this
	// one told it. With Study and Series.
	Origin string
}

// bytes reports whether bytes of an instance are wanted.
func (w *Want) bytes() bool { return w.Frame > 0 || w.Bytes > 0 && w.SOP != "" }

// ahead reports whether bytes of a series are.
func (w *Want) ahead() bool { return w.Bytes > 0 && w.SOP == "" }

// Manifest is what a node holds of one series. It is immutable.
type Manifest struct {
	Node          string // who holds it
	Study, Series string
	Packs         []Pack     // in the order in which the instances name them
	Instances     []Instance // in ascending order of their SOP Instance UIDs, which are distinct
}

// Pack is a pack at another node.
type Pack struct {
	ID            pack.ID
	Study, Series string
	Bytes         int64    // of the ciphertext
	Plaintext     int64    // bytes, the pack's own manifest at its end included
	Manifest      int64    // offset of that in the plaintext
	Root          [32]byte // of the hash tree over the ciphertext
	KeyID         [16]byte // of the study key
	Key           seal.Key // the study key; the pack's own is seal.PackKey of it
	Instances     uint32   // that it was made of
}

// Record is the pack as a record, without where it rests.
func (p *Pack) Record() *archivepb.Pack {
	return &archivepb.Pack{
		Version: recordVersion, Id: p.ID[:], Study: p.Study, Series: p.Series, Key: p.KeyID[:], BlobBytes: p.Bytes,
		Root: p.Root[:], Plaintext: p.Plaintext, Manifest: p.Manifest, Instances: p.Instances,
	}
}

// PackOf is a pack of a record, whose ids, key and root have their lengths.
func PackOf(r *archivepb.Pack, key seal.Key) Pack {
	return Pack{
		ID: pack.ID(r.Id), Study: r.Study, Series: r.Series, Bytes: r.BlobBytes, Plaintext: r.Plaintext, Manifest: r.Manifest,
		Root: [32]byte(r.Root), KeyID: [16]byte(r.Key), Key: key, Instances: r.Instances,
	}
}

// Instance is a stored instance at another node.
type Instance struct {
	Record *archivepb.Instance // as its node has it; Number is that node's
	// Header is the header record (dicom.ParseHeader); nil if it is longer than
	// 16 MiB: then it has to be read from the bytes.
	Header []byte
	// Pack is the index of its pack in the manifest; -1: not packed yet, to be read
	// by [Client.Staged].
	Pack   int
	Chunks []pack.Chunk // in the pack; none while staged
	Lost   bool         // its node has lost it with its pack, which is not told of
}

// Entry is the instance's place in its pack, for pack.Codec.Instance. Its record
// is empty.
func (in *Instance) Entry() *pack.Entry {
	e := &pack.Entry{Bytes: in.Record.Bytes, Chunks: in.Chunks}
	copy(e.Hash[:], in.Record.Hash)
	return e
}

// ReaderAt is an io.ReaderAt whose reads may wait for another node, and end with
// a context.
type ReaderAt interface {
	ReadAt(ctx context.Context, p []byte, off int64) (int, error)
}

// Shards stands among the nodes of [Client.Read] for the shards of a pack, wherever
// they are: [Options.Packs] reads them.
const Shards = "*"

// Packs reads the ciphertext of packs otherwise than from a full copy of them;
// *recalled.Client is one.
type Packs interface {
	// ReadPack fills b, whole segments of a pack from off on, all or nothing. Nothing of
	// it is believed before its segments are authenticated. It ends soon after ctx does,
	// and by itself when nobody sends anything. fault.NotFound if it knows of no such
	// pack.
	ReadPack(ctx context.Context, p *Pack, b []byte, off int64) error
}

// InMemory is how long a pack may be that is in memory whole before it is kept.
const InMemory = maxResident

// Keeper keeps packs that were read whole.
type Keeper interface {
	// Keep is called once for a pack that was read whole and whose root is right,
	// by one goroutine at a time. The ciphertext is valid until it returns, and
	// its memory serves no other reads meanwhile. A pack of over [InMemory] bytes is
	// still being read: its ciphertext is to be read once, in order, which takes as
	// long as its readers take, its root is not checked yet, and Keep is called beside
	// others. An error is logged, but for fault.Unavailable, of which who keeps has to
	// tell; the pack is then not kept, and may be offered again when it was read again:
	// for fault.Full not before its memory has gone.
	Keep(ctx context.Context, p Pack, ciphertext io.ReaderAt) error
}
