package main

import (
	"time"

	"pelago/chaos/world"
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

	// Of rows with nodes:
	spread         int           // images that each site stores a round, in one series
	commits, study int           // studies that are committed to, in each half of a round; their images
	rebuild, noisy int           // images that each site stores before one is lost, and pixels a side
	narrow         world.Rate    // by which sites are connected while one is rebuilt
	short          int           // series of which a frame is read from elsewhere
	reading        time.Duration // how long readers read at least
}

var (
	shardsFull = shardSize{pack: 64 << 20, turns: 5, images: 300, edge: 512, reads: 300, most: 64,
		spread: 200, commits: 12, study: 100, rebuild: 500, noisy: 640, narrow: 10 * world.Mbps, short: 400, reading: 20 * time.Second}
	shardsQuick = shardSize{pack: 2 << 20, turns: 1, images: 12, edge: 256, reads: 12, most: 13,
		spread: 4, commits: 2, study: 3, rebuild: 4, noisy: 640, narrow: 5 * world.Mbps, short: 8, reading: time.Second}
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
		{"spread", shardSpread, []line{
			{"bytes between sites per byte stored, of (n − n/N)/k, packs ≥ 16 MiB", "spread bytes", "≤ 1.02×", []check{{most, "", 1.02}}},
			{"bytes on disk over n/k, packs ≥ 16 MiB", "spread disk", "≤ 1.01×", []check{{most, "", 1.01}}},
		}},
		{"commit", shardCommit, []line{
			{"commitment after N-ACTION, 100 CT images, 6 sites, 80 ms, 1 Gb/s: p50", "commit p50", "< 5 s", []check{{most, "", 5}}},
			{"the same: p99", "commit p99", "< 30 s", []check{{most, "", 30}}},
			{"the same with one site down: p50", "commit down p50", "< 5 s", []check{{most, "", 5}}},
			{"the same: p99", "commit down p99", "< 30 s", []check{{most, "", 30}}},
		}},
		{"rebuild", shardRebuild, []line{
			{"rebuild of a lost site over (bytes ÷ sum of links), unpaced, without readers", "rebuild", "≤ 1.3×", []check{{most, "", 1.3}}},
		}},
		{"readers", shardReaders, []line{
			{"readers' p99 during paced repair and scrub over quiet: frames that rest where they are read", "readers near", "≤ 1.25×", []check{{most, "", 1.25}}},
			{"the same: first frames of series that rest elsewhere", "readers away", "≤ 1.25×", []check{{most, "", 1.25}}},
		}},
	}
}
