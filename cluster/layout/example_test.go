package layout_test

import (
	"fmt"

	"pelago/cluster/layout"
)

func Example() {
	var holders []layout.Holder
	for _, site := range []string{"bayside", "eastend", "lakes", "mercy", "north", "st-olaf"} {
		holders = append(holders, layout.Holder{Node: layout.Node{ID: site + "/a", Site: site, Pledge: 10e12}})
	}
	first, err := layout.Compute(nil, holders, 4) // stripes of 2+2
	if err != nil {
		panic(err)
	}
	capacity := first.Capacity()
	fmt.Printf("%d groups, %.2f of %.0f TB can be used\n", first.Groups, float64(capacity.Bytes)/1e12, float64(capacity.Pledged)/1e12)

	const spread = 0x04555555_55555555 // a pack's, shard.Spread
	group := first.Group(spread)
	fmt.Print("group ", group, ":")
	for _, node := range first.Row(group) {
		fmt.Print(" ", node.ID)
	}
	fmt.Println()

	holders[3].Lost = true
	second, err := layout.Compute(first, holders, 4)
	if err != nil {
		panic(err)
	}
	moves := layout.Diff(first, second, 4)
	fmt.Printf("mercy had %d of %d places, and so many are given to others\n", len(moves), 4*first.Groups)

	view := layout.View{New: second, Old: first}
	for i := range 4 {
		fmt.Print("shard ", i, ":")
		for _, node := range view.Candidates(spread, i) {
			fmt.Print(" ", node.ID)
		}
		fmt.Println()
	}
	// Output:
	// 1024 groups, 59.97 of 60 TB can be used
	// group 17: mercy/a lakes/a st-olaf/a north/a eastend/a bayside/a
	// mercy had 683 of 4096 places, and so many are given to others
	// shard 0: bayside/a mercy/a
	// shard 1: lakes/a
	// shard 2: st-olaf/a
	// shard 3: north/a
}
