package held

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"pelago/cluster/call"
	"pelago/cluster/fault"
	"pelago/shard/seal"
	"pelago/shard/stripe"
)

// Caller sends a request to the peer that its URL names; *call.Client is one.
type Caller interface {
	Send(request *http.Request) (*http.Response, error)
}

// Members knows the keys of the network's nodes; the catalogue does.
type Members interface {
	// SigningKey returns the public key of a member's record; fault.Denied for a node
	// that is no member.
	SigningKey(node string) (ed25519.PublicKey, error)
}

// Client asks other nodes about shards that they hold. What it returns of their
// bytes is verified. Safe for concurrent use.
type Client struct {
	calls   Caller
	members Members
}

// NewClient returns a client.
func NewClient(calls Caller, members Members) *Client { return &Client{calls, members} }

// Offer is a shard to be sent: as it rests and travels, Bytes long.
type Offer struct {
	Claim
	// Write writes the shard; it is called once, if the node wants any of the batch.
	Write func(ctx context.Context, to io.Writer) error
}

// Upload sends shards, ascending by name, to a node, and returns what became of
// each, with the node's receipt, whose signature is right, for those that it holds.
// They are durable there. At most [MaxBatch] of at most [MaxSmall] bytes each, or
// one of any length.
//
// fault.Full if the node has no room for them, fault.Unavailable if it does not
// answer or breaks off: some may be there then, which [Client.Receipts] tells.
func (c *Client) Upload(ctx context.Context, node string, offers []Offer) (*Landed, error) {
	claims := make([]Claim, len(offers))
	entries := make([]Entry, len(offers))
	for i, o := range offers {
		claims[i], entries[i] = o.Claim, o.Entry
	}
	if err := checkClaims(claims); err != nil {
		return nil, err
	}
	ctx, stall := call.NewStall(ctx, landWithin)
	defer stall.Stop()
	body, in := io.Pipe()
	var own atomic.Pointer[error] // of the caller's Write
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := writeOffers(ctx, in, claims, offers)
		if err != nil && !errors.Is(err, io.ErrClosedPipe) {
			own.Store(&err)
		}
		in.CloseWithError(err) // never fails
	}()
	defer func() {
		body.CloseWithError(io.ErrClosedPipe) // the node answered before it had all
		stall.Stop()
		<-ended
	}()
	b, err := c.post(ctx, node, pathUpload, stall.Reader(body), magicBytes+4+MaxBatch+maxReceipt)
	if err != nil {
		if cause := own.Load(); cause != nil && !call.Answered(err) {
			return nil, *cause
		}
		return nil, err
	}
	return c.landed(node, b, entries)
}

// writeOffers writes the body of an upload.
func writeOffers(ctx context.Context, to io.Writer, claims []Claim, offers []Offer) error {
	out := bufio.NewWriterSize(to, 256<<10)
	if _, err := out.Write(appendClaims(nil, claims)); err != nil {
		return err
	}
	for _, o := range offers {
		counted := &counter{to: out}
		if err := o.Write(ctx, counted); err != nil {
			return err
		}
		if counted.n != o.Bytes {
			return fault.New(fault.Invalid, "held: shard %v has %d bytes, not %d", o.Name, counted.n, o.Bytes)
		}
	}
	return out.Flush()
}

type counter struct {
	to io.Writer
	n  int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.n += int64(n)
	return n, err
}

// Receipts asks a node whether it holds shards, ascending by name, and for its
// receipt. Its answer is what its rows say; [Client.Prove] asks for the bytes.
func (c *Client) Receipts(ctx context.Context, node string, entries []Entry) (*Landed, error) {
	if err := inOrder(entries, entryName); err != nil {
		return nil, err
	}
	ctx, stall := call.NewStall(ctx, answerWithin)
	defer stall.Stop()
	b, err := c.post(ctx, node, pathReceipts, bytes.NewReader(appendEntries(nil, entries)), magicBytes+4+MaxBatch+maxReceipt)
	if err != nil {
		return nil, err
	}
	return c.landed(node, b, entries)
}

// landed reads an answer about shards and verifies its receipt.
func (c *Client) landed(node string, b []byte, entries []Entry) (*Landed, error) {
	l, err := parseLanded(b, entries)
	if err != nil || l.Receipt == nil {
		return l, err
	}
	if l.Receipt.Holder != node {
		return nil, fault.New(fault.Invalid, "held: node %s gives a receipt of node %s", node, l.Receipt.Holder)
	}
	key, err := c.members.SigningKey(node)
	if err != nil {
		return nil, err
	}
	return l, l.Receipt.Verify(key)
}

// Leaves asks a node for whole leaves of a shard's body, from first on, [MaxRange]
// bytes of them at most, and returns when the answer has begun. Nothing of it is
// verified: that is for who has the head, run by run. fault.NotFound if the node does
// not hold the shard, fault.Corrupt if it has lost it.
func (c *Client) Leaves(ctx context.Context, node string, n Name, first, count int64) (*Leaves, error) {
	if first < 0 || count < 1 || count > MaxRange/seal.LeafBytes {
		return nil, fault.New(fault.Invalid, "held: leaves %d+%d, at most %d at once", first, count, MaxRange/seal.LeafBytes)
	}
	body, err := c.stream(ctx, node, pathOf(n, "leaves")+fmt.Sprintf("?first=%d&count=%d", first, count))
	if err != nil {
		return nil, err
	}
	return &Leaves{answer: body, left: count}, nil
}

// Leaves is a range of a shard as it comes: runs of leaves, each behind its proof.
// Read and Close may be called from two goroutines. Who does not read for 15 s is
// given up by the node.
type Leaves struct {
	*answer
	left int64 // leaves
}

// Proof reads the proof of the run that is next, and tells how many leaves that has:
// its bytes are read next. io.EOF behind the last run, fault.Invalid if the answer
// goes on there.
func (l *Leaves) Proof() (proof [][32]byte, leaves int64, err error) {
	if l.left == 0 {
		if err := atEnd(l); err != nil {
			return nil, 0, err
		}
		return nil, 0, io.EOF
	}
	leaves = min(l.left, runLeaves)
	l.left -= leaves
	proof, err = readProof(l)
	return proof, leaves, err
}

// Range returns whole leaves of a shard's body, which lead to its root in the head.
// The head is one that was checked by the stripe root. At most [MaxRange] bytes.
// got, unless it is nil, is called with what is there and verified, as it comes; that
// is not changed any more.
//
// fault.NotFound if the node does not hold it, fault.Corrupt if it lost it or sends
// other bytes.
func (c *Client) Range(ctx context.Context, node string, head *stripe.Head, index int, first, count int64, got func(data []byte)) ([]byte, error) {
	body, err := bodyOf(head, index)
	if err == nil {
		err = checkLeaves(first, count, body)
	}
	if err != nil {
		return nil, err
	}
	leaves, err := c.Leaves(ctx, node, Name{head.Stripe, index}, first, count)
	if err != nil {
		return nil, err
	}
	defer leaves.Close() //nolint:errcheck // only read
	data := make([]byte, min((first+count)*seal.LeafBytes, body)-first*seal.LeafBytes)
	for at := int64(0); ; {
		proof, n, err := leaves.Proof()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		run := data[at:min(at+n*seal.LeafBytes, int64(len(data)))]
		if _, err := io.ReadFull(leaves, run); err != nil {
			return nil, errCut(err)
		}
		if err := head.VerifyRange(index, first+at/seal.LeafBytes, run, proof); err != nil {
			return nil, fmt.Errorf("held: node %s, shard %d of %v: %w", node, index, head.Stripe, err)
		}
		if at += int64(len(run)); got != nil {
			got(data[:at])
		}
	}
}

// answer is the body of an answer as it comes. Its errors tell what ended it.
type answer struct {
	caused
	body  io.Closer
	stall *call.Stall
}

// Close ends it.
func (a *answer) Close() error {
	a.stall.Stop()
	return a.body.Close()
}

// stream sends a request for what is read as it comes.
func (c *Client) stream(ctx context.Context, node, path string) (*answer, error) {
	ctx, stall := call.NewStall(ctx, answerWithin)
	response, err := c.send(ctx, node, http.MethodGet, path, nil) //nolint:bodyclose // answer.Close does
	if err != nil {
		stall.Stop()
		return nil, err
	}
	return &answer{caused{ctx, stall.Reader(response.Body)}, response.Body, stall}, nil
}

// caused gives the cause of a context's end instead of a broken stream.
type caused struct {
	ctx  context.Context //nolint:containedctx // of one call
	from io.Reader
}

func (c *caused) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if err != nil && c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	return n, err
}

// Head returns a stripe's head from a node that holds a shard, checked by the
// stripe root: fault.Corrupt for another.
func (c *Client) Head(ctx context.Context, node string, e Entry) (*stripe.Head, error) {
	from, err := c.stream(ctx, node, pathOf(e.Name, "head"))
	if err != nil {
		return nil, err
	}
	defer from.Close() //nolint:errcheck // only read
	b, err := call.Read(from, stripe.MaxHeadBytes)
	if err != nil {
		return nil, err
	}
	return headOf(b, e)
}

// headOf reads a head and checks that it is a stripe's.
func headOf(b []byte, e Entry) (*stripe.Head, error) {
	head, err := stripe.ParseHead(b)
	if err != nil {
		return nil, err
	}
	if head.Stripe != e.Stripe || head.Root() != e.Root {
		return nil, fault.New(fault.Corrupt, "held: a head that is not that of %v", e.Stripe)
	}
	return head, nil
}

// Opening asks a node that holds a shard for its stripe's head, in canonical form, and
// the tail, which the shard must carry (fault.NotFound), and returns when the head is
// here. Nothing of it is verified.
func (c *Client) Opening(ctx context.Context, node string, n Name) (head []byte, tail io.ReadCloser, err error) {
	from, err := c.stream(ctx, node, pathOf(n, "tail"))
	if err != nil {
		return nil, nil, err
	}
	if head, err = readOpening(from); err != nil {
		return nil, nil, errors.Join(err, from.Close())
	}
	return head, from, nil
}

// readOpening reads the head before a tail.
func readOpening(from io.Reader) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, errCut(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > stripe.MaxHeadBytes {
		return nil, fault.New(fault.Invalid, "held: a head of %d bytes", n)
	}
	head := make([]byte, n)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, errCut(err)
	}
	return head, nil
}

// Tail returns a stripe's head and tail from a node that holds a shard which
// carries it, both verified by the stripe root. A tail of over 1 GiB is
// fault.Invalid.
func (c *Client) Tail(ctx context.Context, node string, e Entry) (*stripe.Head, []byte, error) {
	b, from, err := c.Opening(ctx, node, e.Name)
	if err != nil {
		return nil, nil, err
	}
	defer from.Close()
	head, err := headOf(b, e)
	if err != nil {
		return nil, nil, err
	}
	_, size := head.TailRange()
	if size > maxTail {
		return nil, nil, fault.New(fault.Invalid, "held: a tail of %d bytes", size)
	}
	tail, err := io.ReadAll(io.LimitReader(from, size+1)) // grows with what comes
	if err != nil {
		return nil, nil, errCut(err)
	}
	if int64(len(tail)) != size {
		return nil, nil, fault.New(fault.Unavailable, "held: a tail of %d bytes of which %d came", size, len(tail))
	}
	if err := seal.VerifyRoot(bytes.NewReader(tail), size, head.Tail); err != nil {
		return nil, nil, fmt.Errorf("held: node %s: %w", node, err)
	}
	return head, tail, nil
}

// Audit is a shard to be proved.
type Audit struct {
	Head  *stripe.Head // checked by the stripe root
	Index int
}

// Prove asks a node to prove that it has shards: a leaf of each, chosen at random
// now, whose bytes must lead to the root. errs has for each shard nil, or why it is
// not proved: fault.NotFound, fault.Corrupt, fault.Unavailable; err is of the call
// as a whole. At most [MaxChallenges] shards. A shard of which a part f is missing
// passes with 1 − f; asked n times, with (1 − f)^n.
func (c *Client) Prove(ctx context.Context, node string, shards []Audit) (errs []error, err error) {
	if len(shards) < 1 || len(shards) > MaxChallenges {
		return nil, fault.New(fault.Invalid, "held: an audit of %d shards, at most %d", len(shards), MaxChallenges)
	}
	all := make([]Challenge, len(shards))
	sizes := make([]int64, len(shards))
	for i, a := range shards {
		if sizes[i], err = bodyOf(a.Head, a.Index); err != nil {
			return nil, err
		}
		leaves := (sizes[i] + seal.LeafBytes - 1) / seal.LeafBytes
		all[i] = Challenge{Name{a.Head.Stripe, a.Index}, anyOf(leaves)}
	}
	ctx, stall := call.NewStall(ctx, answerWithin)
	defer stall.Stop()
	response, err := c.send(ctx, node, http.MethodPost, pathProofs, bytes.NewReader(appendChallenges(nil, all)))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	from := &caused{ctx, stall.Reader(response.Body)}
	errs = make([]error, len(shards))
	for i, a := range shards {
		if errs[i], err = readProved(from, a, all[i].Leaf, sizes[i]); err != nil {
			return nil, err
		}
	}
	return errs, atEnd(from)
}

// anyOf returns a number below n, at most 2^40, that nobody can foresee.
func anyOf(n int64) int64 {
	var b [8]byte
	rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:]) % uint64(n)) // its bias is below 2^-24
}

// readProved reads the answer to one challenge. failed is why the shard is not
// proved, err why the answer cannot be read on.
func readProved(from io.Reader, a Audit, leaf, size int64) (failed, err error) {
	var b [2]byte
	if _, err := io.ReadFull(from, b[:1]); err != nil {
		return nil, errCut(err)
	}
	switch b[0] {
	case 1:
		if _, err := io.ReadFull(from, b[:1]); err != nil {
			return nil, errCut(err)
		}
		if int(b[0]) >= len(fault.Kinds()) {
			return nil, fault.New(fault.Invalid, "held: a failure of kind %d", b[0])
		}
		return fault.New(fault.Kind(b[0]), "held: shard %d of %v is not proved", a.Index, a.Head.Stripe), nil
	case 0:
	default:
		return nil, fault.New(fault.Invalid, "held: a proof of kind %d", b[0])
	}
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return nil, errCut(err)
	}
	n := binary.BigEndian.Uint16(b[:])
	if n > seal.LeafBytes {
		return nil, fault.New(fault.Invalid, "held: a leaf of %d bytes", n)
	}
	proof, err := readProof(from)
	if err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(from, data); err != nil {
		return nil, errCut(err)
	}
	if err := seal.VerifyRange(a.Head.Roots[a.Index], size, leaf, data, proof); err != nil {
		return fault.New(fault.Corrupt, "held: shard %d of %v: %w", a.Index, a.Head.Stripe, err), nil
	}
	return nil, nil
}

// List returns a page of what a node holds, or has lost, of packs whose
// [shard.Spread] is from lo to hi, behind a name; nil begins. more: others follow
// the last one. fault.Invalid for what does not ascend.
func (c *Client) List(ctx context.Context, node string, lo, hi uint64, after *Name) (page []Status, more bool, err error) {
	path := fmt.Sprintf("%s?from=%x&to=%x", pathList, lo, hi)
	last := ""
	if after != nil {
		path += "&after=" + hex.EncodeToString(after.append(nil))
		last = keyShard(*after)
	}
	from, err := c.stream(ctx, node, path)
	if err != nil {
		return nil, false, err
	}
	defer from.Close() //nolint:errcheck // only read
	page, more, err = readListed(from)
	if err != nil {
		return nil, false, err
	}
	for _, st := range page {
		key := keyShard(st.Name)
		if at := binary.BigEndian.Uint64([]byte(key[1:9])); key <= last || at < lo || at > hi {
			return nil, false, fault.New(fault.Invalid, "held: node %s lists shard %v out of its place", node, st.Name)
		}
		last = key
	}
	if more && len(page) == 0 {
		return nil, false, fault.New(fault.Invalid, "held: node %s lists nothing, and more", node)
	}
	return page, more, nil
}

// post sends a body and returns the whole answer.
func (c *Client) post(ctx context.Context, node, path string, body io.Reader, limit int) ([]byte, error) {
	response, err := c.send(ctx, node, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return call.Read(&caused{ctx, response.Body}, limit)
}

// send sends a request. When the context ended by a stall, that is the error.
func (c *Client) send(ctx context.Context, node, method, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+node+path, body)
	if err != nil {
		return nil, fault.New(fault.Invalid, "held: %w", err)
	}
	response, err := c.calls.Send(request)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return response, err
}
