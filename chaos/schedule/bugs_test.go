package schedule

import (
	"net/http"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/node/evict"
	"pelago/node/protect"
	"pelago/node/purge"
	"pelago/node/spread"
	"pelago/shard/held"
)

// bug is a deliberate fault, put between the parts of a node; nil is none.
type bug struct {
	name string

	spread  func(*held.Client) spread.Holders
	protect func(*held.Client) protect.Shards
	evict   func(s *node, o *evict.Options)
	purge   func(s *node, o *purge.Options)
	hold    func(s *node, h http.Handler) http.Handler
	start   func(s *node)
	disk    func(s *node, disk vfs.FS) vfs.FS
}

func (b *bug) spreading(c *held.Client) spread.Holders {
	if b == nil || b.spread == nil {
		return c
	}
	return b.spread(c)
}

func (b *bug) proofs(c *held.Client) protect.Shards {
	if b == nil || b.protect == nil {
		return c
	}
	return b.protect(c)
}

func (b *bug) evicting(s *node, o evict.Options) evict.Options {
	if b != nil && b.evict != nil {
		b.evict(s, &o)
	}
	return o
}

func (b *bug) purging(s *node, o purge.Options) purge.Options {
	if b != nil && b.purge != nil {
		b.purge(s, &o)
	}
	return o
}

func (b *bug) holding(s *node, h http.Handler) http.Handler {
	if b == nil || b.hold == nil {
		return h
	}
	return b.hold(s, h)
}

func (b *bug) starting(s *node) {
	if b != nil && b.start != nil {
		b.start(s)
	}
}

// syncing is the disk of a node.
func (b *bug) syncing(s *node, disk vfs.FS) vfs.FS {
	if b == nil || b.disk == nil {
		return disk
	}
	return b.disk(s, disk)
}
