package main

import (
	"pelago/shard"
)

// shardSize is how much is cut, read and spread in the rows of shards.
type shardSize struct {
	pack   int // bytes of plaintext of a pack that is sealed
	turns  int // that each part of the pipeline takes in a round
	images int // CT of the series that is read from shards
	edge   int // pixels a side
	reads  int // frames that are read a round, one after the other
	most   int // sites of the largest network whose layouts are computed
}

var (
	shardsFull  = shardSize{pack: 64 << 20, turns: 5, images: 300, edge: 512, reads: 300, most: 64}
	shardsQuick = shardSize{pack: 2 << 20, turns: 1, images: 12, edge: 256, reads: 12, most: 13}
)

// readCode is that of the stripes that are read: of a network of six to eight sites.
var readCode, _ = shard.Default(7)

// What figures of shards stand beside.
const rowStriping = "row striping"

// shardRows are those of shards.
func shardRows() []row {
	return []row{
		{"pipeline", shardPipeline, []line{
			{"seal pipeline (compress aside): encrypt + hash + encode + verify, one core, over the sum of its parts measured alone; the worst of the default codes",
				"pipeline", "≥ 0.7", []check{{least, "", 0.7}}},
			{"the same, beside parts that repeat bytes which the cache holds", "pipeline in cache", "≥ 0.7", []check{{least, "", 0.7}}},
		}},
		{"read", shardRead, []line{
			{"healthy read of one frame from a remote shard: requests", "healthy requests", "1", []check{{most, "", 1}}},
			{"the same: sites asked", "healthy sites", "1", []check{{most, "", 1}}},
			{"the same: bytes that are asked for twice to be sooner, of the others", "healthy hedged", "≤ 5 %", []check{{most, "", 5}}},
			{"sites asked per healthy frame, against MinIO-like row striping of the same stripe", "striped sites", "1 instead of k", []check{{faster, rowStriping, float64(readCode.K)}}},
			{"healthy read: p50 over (round trip + bytes ÷ bandwidth), 50 ms, 1 Gb/s", "healthy 1 Gb/s", "≤ 1.2×", []check{{most, "", 1.2}}},
			{"the same at 100 Mb/s", "healthy 100 Mb/s", "≤ 1.2×", []check{{most, "", 1.2}}},
			{"degraded read of one frame, no full copy anywhere: p50 over that of a healthy one, 1 Gb/s", "degraded", "≤ 2×", []check{{most, "", 2}}},
			{"the same: bytes fetched over k × (the frame rounded out to whole segments)", "degraded bytes", "≤ 1.02×", []check{{most, "", 1.02}}},
		}},
		{"series", shardSeries, []line{
			{"series read with one dead and one slow (10×) holder, after detection: p99 over (healthy p99 + 1.2 × the hedge delay)", "series p99", "≤ 1×", []check{{most, "", 1}}},
			{"the same: bytes that are asked for twice to be sooner, of the others", "series hedged", "≤ 5 %", []check{{most, "", 5}}},
		}},
		{"layout", shardLayout, []line{
			{"movement on adding a node, against the optimum; the worst network", "moved by adding", "≤ 1.02×", []check{{most, "", 1.02}}},
			{"movement on removing a node, against the optimum; the worst network", "moved by removing", "≤ 1.02×", []check{{most, "", 1.02}}},
			{"slots, max ÷ mean, at N ≥ 2n; the worst network", "slots", "≤ 1.03×", []check{{most, "", 1.03}}},
		}},
	}
}
