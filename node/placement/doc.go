// Package placement is where the network's shards belong, as this node knows it
// (DESIGN §5, Layout; §7).
//
//	catalogue's registry → State: the layouts that are valid, the code of new stripes
//
// A [State] is a snapshot that is never changed: whoever places, reads, repairs or
// vouches for shards takes one and asks it where they are.
package placement
