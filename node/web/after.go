package web

import (
	"context"
	"strings"

	"pelago/cluster/fault"
)

// Reading what one has written, at any node: a store request is answered with the
// node's id, and a request that names nodes is answered from what they had
// acknowledged before it, or not at all.
const (
	writtenHeader = "Pelago-Written"
	afterHeader   = "Pelago-After"
	// maxAfter bounds the nodes that one request names.
	maxAfter = 8
)

// after waits for the nodes that the request names.
func (c *call) after() error {
	fields := c.r.Header.Values(afterHeader)
	if len(fields) == 0 || c.options.After == nil {
		return nil
	}
	nodes := strings.Split(strings.Join(fields, ","), ",")
	if len(nodes) > maxAfter {
		return fault.New(fault.Invalid, "%s names over %d nodes", afterHeader, maxAfter)
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), c.limits.Wait)
	defer cancel()
	for _, node := range nodes {
		if err := c.options.After(ctx, strings.TrimSpace(node)); err != nil {
			return err
		}
	}
	return nil
}
