package main

// size is how much is stored and asked.
type size struct {
	images, perSeries, edge int // CT of the C-STORE rows; pixels a side
	tiny                    int // studies of one 64-pixel instance
	studies, orthanc        int // in the catalogues of the query row
	queries, slow           int // of each shape a round: of the node, of Orthanc
	retrieve                int // images of the study that is fetched
	frames                  int // requests a round
	short, long             int // images of the series whose metadata is asked for
	copies                  int // of each real file
	multi                   int // frames of 512 × 512 of the long multi-frame
	each                    int // images that each of the 16 associations sends
}

var (
	full = size{
		images: 800, perSeries: 100, edge: 512, tiny: 20_000, studies: 1_000_000, orthanc: 20_000,
		queries: 400, slow: 25, retrieve: 400, frames: 2_000, short: 200, long: 600, copies: 12, multi: 2_000, each: 50,
	}
	quick = size{
		images: 16, perSeries: 2, edge: 64, tiny: 40, studies: 3_000, orthanc: 20,
		queries: 5, slow: 2, retrieve: 8, frames: 32, short: 3, long: 5, copies: 1, multi: 8, each: 2,
	}
)
