// Package catalog is the replicated table of patients, studies and series, study keys
// and seals, tombstones and registries: a deterministic state machine in a Pebble of its
// own (catalog/). The same entries in the same order give the same records on
// every node.
//
// # What it holds
//
// A study record is the fold of its visible series in the order in which they
// were first announced: the first value of an attribute that any of them has,
// the patients they name, counts, modalities, SOP classes, sites. A series
// record keeps what each origin said of it, because origins speak in absolute
// values and may be heard again. Tombstones hide records and never expire.
// docs/formats/catalog.md has the rows, and the entries, to the byte.
//
// # Keys and seals
//
// A pack's record has the seals of its stripes ([SealFact]): what each is made of,
// which the first committed saying settles for ever, and where its shards are, which
// is told again. Study keys ([KeyFact]) open packs. Both are found by study and series
// ([View.Seals], [View.Keys]) and by their ids; packs also in the order of their
// spread ([View.Group]), keys in that of their commit ([Catalog.StudyKeys]). A stripe
// goes when a later generation of its pack, which stands, has withdrawn it, or with its
// pack, and not otherwise.
//
// What a tombstone covers is hidden from readers, and stays until it is purged, pack by
// pack ([PurgeFact]): when the tombstone has stood for the network's grace, by a clock
// that is no wall clock ([TickFact]), and every member is past it ([SeenFact]). Study
// keys are given up last ([ForgetFact]).
//
// # What changes it
//
// An entry of the log is a [Batch] of a node's journal, numbered densely and bound
// to the one before, or a [Decision]: commands under conditions. A member signs
// it, and Apply verifies. What is refused is refused on every node alike and is
// told as a result; an entry for a newer version stops Apply. [Cursor] says how far
// a journal is known.
//
// # What is not committed yet
//
// A node sees its own facts at once ([Catalog.Ahead]): they stand in the series
// record beside what is committed, behind all that is in the order of
// announcement, and give way to it. Nothing that is committed depends on them. The
// state hash ([Catalog.StateHash]) is of what is committed, and equal on every
// node at equal indexes. [Adopt] makes another node's copy one's own.
//
// # Order and indexes
//
// Studies are listed by [Order]: newest study date and time first, then a dense
// number given at the first announcement. Study rows are stored in that order,
// and every index posting ends in it, so that any index is a stream in the
// order of the answer: streams are intersected by seeking and stop at a limit.
// What is indexed is not decided here: an [Indexer] (query/plan) names the terms
// of a study, and a changed fact rewrites the difference of old and new terms.
// Indexes are local; records are what nodes agree on.
//
// # Concurrency
//
// Apply, Ahead and Shorten take a lock, one at a time; reads run beside them on
// snapshots ([View]) and never wait. Who waits for news has [Catalog.Changed].
//
// # What it does not do
//
// It does not decide what to announce (journal), match attributes (query/match)
// or know instances: those are the archive's, and an instance's tombstone lowers
// a count only when the origin says so.
package catalog
