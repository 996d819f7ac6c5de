package main

import (
	"slices"
	"testing"
	"time"

	"pelago/cluster/gossip"
)

func TestRelaysAreThoseThatTellOfTheNode(t *testing.T) {
	const node = "cccccccc234567cccccccccccccccccc"
	reaches := func(id string, rtt time.Duration, to string, rest time.Duration) gossip.Member {
		return gossip.Member{Node: id, RTT: rtt, Meta: gossip.Meta{RTT: map[string]time.Duration{to: rest}}}
	}
	got := relaysTo(node, []gossip.Member{
		reaches("far", 80*time.Millisecond, "cccccccc", 20*time.Millisecond),
		reaches("new", 0, "cccccccc", time.Millisecond), // nobody has probed it yet
		reaches("near", 10*time.Millisecond, "cccccccc", 20*time.Millisecond),
		reaches("other", 10*time.Millisecond, "dddddddd", 20*time.Millisecond),
		reaches("silent", 10*time.Millisecond, "cccccccc", 0),
		reaches(node, 10*time.Millisecond, "cccccccc", time.Millisecond),
		{Node: "mute", RTT: time.Millisecond},
	})
	if want := []string{"near", "far", "new"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := relaysTo("x", nil); len(got) > 0 {
		t.Errorf("of nobody: %v", got)
	}
}
