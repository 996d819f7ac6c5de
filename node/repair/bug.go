package repair

// bug is a fault that cost other systems their data. Tests switch one on and must see
// it; 0, none, is what runs.
type bug uint8

const (
	bugTrustsSource bug = 1 + iota // what a source has is taken for what is sealed
	bugNoReceipt                   // surplus goes without asking the holder
	bugUnreferenced                // what no seal names goes
	bugDuringChange                // surplus goes while the layout changes
	bugGenerations                 // a stripe goes once a later generation is sealed, however few shards that has
	bugs
)
