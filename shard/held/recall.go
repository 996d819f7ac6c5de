package held

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"

	"pelago/cluster/fault"
	"pelago/shard"
	"pelago/shard/recall"
	"pelago/shard/stripe"
)

var _ recall.Holders = (*Client)(nil)

// Leaves implements [recall.Holders], which verifies what comes and gives it its
// time. fault.Unsupported for what another node would have to pass on.
func (c *Client) Leaves(ctx context.Context, at recall.Place, of shard.Stripe, first, count int64) (recall.Leaves, error) {
	response, err := c.sendTo(ctx, at, of, fmt.Sprintf("leaves?first=%d&count=%d", first, count)) //nolint:bodyclose // who reads it does
	if err != nil {
		return recall.Leaves{}, err
	}
	left := count
	proof := func() ([][32]byte, int64, error) {
		run := min(left, runLeaves)
		left -= run
		proof, err := readProof(&caused{ctx, response.Body})
		return proof, run, err
	}
	return recall.Leaves{Proof: proof, Body: response.Body}, nil
}

// Opening implements [recall.Holders], as [Client.Leaves] does.
func (c *Client) Opening(ctx context.Context, at recall.Place, of shard.Stripe) (recall.Opening, error) {
	response, err := c.sendTo(ctx, at, of, "tail")
	if err != nil {
		return recall.Opening{}, err
	}
	head, err := readLead(&caused{ctx, response.Body})
	if err != nil {
		response.Body.Close()
		return recall.Opening{}, err
	}
	return recall.Opening{Head: head, Body: response.Body}, nil
}

// readLead reads the head before a tail.
func readLead(from io.Reader) ([]byte, error) {
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

// sendTo asks for something of a shard.
func (c *Client) sendTo(ctx context.Context, at recall.Place, of shard.Stripe, what string) (*http.Response, error) {
	if at.Via != "" {
		return nil, fault.New(fault.Unsupported, "held: %v: calls are not passed on", at)
	}
	return c.send(ctx, at.Node, http.MethodGet, pathOf(Name{of, at.Index}, what), nil)
}
