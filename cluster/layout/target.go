package layout

import "math/bits"

// apportion returns how many of the groups*width slots each node should have: whole
// numbers in proportion to the pledges, no site more than one a group.
//
// It is the rule of D'Hondt with a limit for each site: slots are given one by one to
// the node whose pledge a slot would be largest with one more, among those whose site
// has room. This makes the largest number of slots a byte, at the node that is full
// first, as small as it can be with whole slots. For nodes whose site is below its
// limit that is less than (1 + nodes/slots) times the average. And it is monotonic: with
// more nodes or larger pledges of others no node has more, with fewer none has less;
// so rounding moves nothing that the change itself does not.
//
// Among equals those come first that have the slot already, of which have counts how
// many a node has.
func apportion(nodes []Node, site []int, groups, width int, have []int) []int {
	pledged := make([]uint64, site[len(site)-1]+1)
	for v, node := range nodes {
		pledged[site[v]] += uint64(node.Pledge)
	}
	slots, total, full := waterLevel(pledged, groups, width)

	target, room, left := make([]int, len(nodes)), make([]int, len(pledged)), groups*width
	for s := range room {
		room[s] = groups
	}
	for v, node := range nodes { // what the rule is sure to give, rounded down
		of, among := slots, total
		if full[site[v]] {
			of, among = uint64(groups), pledged[site[v]]
		}
		high, low := bits.Mul64(uint64(node.Pledge), of)
		share, _ := bits.Div64(high, low, among) // at most of: the pledge is part of among
		target[v] = int(share)
		room[site[v]] -= target[v]
		left -= target[v]
	}
	for ; left > 0; left-- { // fewer times than there are nodes
		v := next(nodes, site, target, room, have)
		target[v]++
		room[site[v]]--
	}
	return target
}

// waterLevel finds the sites whose share would be more than a slot a group, which
// have exactly that, and what is left for the others: slots for so many bytes.
func waterLevel(pledged []uint64, groups, width int) (slots, bytes uint64, full []bool) {
	full = make([]bool, len(pledged))
	slots = uint64(groups * width)
	for _, p := range pledged {
		bytes += p
	}
	for more := true; more; { // each turn fills a site or is the last
		more = false
		ofSlots, ofBytes := slots, bytes
		for s, p := range pledged {
			if !full[s] && !less(int64(p), int(ofSlots), int64(ofBytes), groups) {
				full[s], more = true, true
				slots, bytes = slots-uint64(groups), bytes-p
			}
		}
	}
	return slots, bytes, full
}

// next is the node that has the next slot.
func next(nodes []Node, site, target, room, have []int) int {
	best := -1
	for v := range nodes {
		if room[site[v]] == 0 {
			continue
		}
		if best < 0 || less(nodes[best].Pledge, target[v]+1, nodes[v].Pledge, target[best]+1) {
			best = v
		} else if !less(nodes[v].Pledge, target[best]+1, nodes[best].Pledge, target[v]+1) &&
			have[v] > target[v] && have[best] <= target[best] {
			best = v
		}
	}
	return best
}
