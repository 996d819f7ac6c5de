// Package keys is the ring of study keys: random keys by (study, origin), named
// by key id and wrapped by an epoch key of the network, kept under keys/ in the
// data directory and nowhere near the packs (DESIGN §7, Keys). Without it,
// bulk/ is noise; forgetting a study's keys makes its packs noise for good.
//
// The ring makes this node's own keys ([Ring.ForStudy]) and keeps those of others
// ([Ring.Keep]), as the catalogue tells of them, so that a node can open what others
// stored when they are gone. Both are found by id and forgotten by study: this node's
// own when it has nothing left of a study, all when the network has given it up. What
// this node packs is only ever under a key of its own. While it holds no epoch key it
// makes none, and says so.
//
// A file is a log of records, only ever appended to, and written anew when keys
// are forgotten. It is read once through at Open, every checksum with it, into an
// index of 22 to 43 bytes a key; keys are read and unwrapped when they are asked
// for. Study UIDs stand in the file in clear: it never leaves the node but by
// backup.
//
// There are two such files, with the same bytes. A key is durable in both before
// [Ring.ForStudy] returns it, and what one has lost is taken from the other: at
// Open, and when a read meets it ([Ring.Mended]). A record that is rotten in both
// loses its key only; it is counted ([Ring.Damaged]) and its bytes are kept.
//
// All methods are safe for concurrent use; the ring's lock is held while it reads
// and writes its files. [Ring.Prepare] makes many keys with one sync of each. The bytes are specified
// in docs/formats/keys.md.
package keys
