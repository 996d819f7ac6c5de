package far

import (
	"context"
	"io"
	"log/slog"
	"net/http"

	"pelago/cluster/fault"
)

// Caller sends a request to the peer that its URL names; *call.Client is one.
type Caller interface {
	Send(request *http.Request) (*http.Response, error)
}

// Self opens what was sealed to this node; *identity.Node is one.
type Self interface {
	ID() string
	Unseal(info, sealed []byte) ([]byte, error)
}

// Options are what a client is made of.
type Options struct {
	Calls  Caller
	Self   Self
	Keep   Keeper // nil: nothing is kept
	Memory int64  // most bytes of other nodes' packs in memory; 256 MiB
	Log    *slog.Logger
}

// Client reads other nodes' archives.
type Client struct{}

// NewClient returns a client. It must be closed.
func NewClient(o Options) *Client { return &Client{} }

// Open asks a node for what is wanted, in one round trip. It returns as soon as
// the wanted instance, and its frame if one was asked for, are here; the rest of
// the manifest comes meanwhile: [Opening.Manifest]. fault.NotFound if the node
// holds no such thing, fault.Unavailable if it does not answer, fault.Invalid if
// its answer is none.
func (c *Client) Open(ctx context.Context, node string, want Want) (*Opening, error) {
	return nil, errNotYet
}

// Series returns the manifest of a series of a node.
func (c *Client) Series(ctx context.Context, node, study, series string) (*Manifest, error) {
	return nil, errNotYet
}

// Find returns the manifest of the series of an instance of a node.
func (c *Client) Find(ctx context.Context, node, sop string) (*Manifest, error) {
	return nil, errNotYet
}

// Read returns the readers of a manifest's packs and staged instances. nodes are
// those that may hold the packs, in the order in which they are asked, the
// manifest's own not among them (those that are known to cache it, usually); it
// is asked after them, and is the only one for what is staged. The manifest may
// be made of stored rows, whenever they were got.
func (c *Client) Read(m *Manifest, nodes ...string) *Series { return &Series{} }

// Close ends what is under way and gives the memory back. Readers fail after it.
func (c *Client) Close() error { return nil }

// Opening is an answer that is still coming.
type Opening struct{}

// First is what has come: the wanted instance, or the series' first, and its
// pack. A series that is read by it finds the bytes of the frame here.
func (o *Opening) First() *Manifest { return nil }

// Manifest waits for the whole manifest.
func (o *Opening) Manifest(ctx context.Context) (*Manifest, error) { return nil, errNotYet }

// Series reads the instances of one manifest. What is read in order, in that of
// the manifest or of the packs, is read ahead, across packs.
type Series struct{}

// Whole says that all of the series will be read in order: it is read ahead with
// the first read already, as far as it may.
func (s *Series) Whole() {}

// Pack returns the reader of a pack's ciphertext, by its index in the manifest.
// Readers of one pack share what is fetched, over all series and manifests.
func (s *Series) Pack(i int) *Reader { return nil }

// Staged returns the reader of the bytes of an instance that is not packed, by
// its index in the manifest. They come from wherever the node has them now. When
// all of it was read, its hash is checked: fault.Corrupt.
func (s *Series) Staged(i int) *Reader { return nil }

// Reader reads a pack's ciphertext, or a staged instance, from other nodes.
type Reader struct{}

// Size is the number of bytes.
func (r *Reader) Size() int64 { return 0 }

// ReadAt reads as io.ReaderAt does. fault.NotFound if no node holds it any more,
// fault.Unavailable if none answers, fault.Corrupt if all send other bytes.
func (r *Reader) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	return 0, errNotYet
}

// With returns the reader as an io.ReaderAt bound to a context. Reads of a
// context that never ends still end: a peer that sends nothing is given up.
func (r *Reader) With(ctx context.Context) io.ReaderAt { return nil }

// Plaintext returns the plaintext of a pack (seal.Reader), bound to a context.
func (r *Reader) Plaintext(ctx context.Context) io.ReaderAt { return nil }

var errNotYet = fault.New(fault.Unsupported, "far: not yet")
