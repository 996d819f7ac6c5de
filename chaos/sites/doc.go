// Package sites runs many sites in one process on virtual time
// (testing/synctest): their ports with TLS, Raft, catalogues and journals are the
// real ones, and only the network and the disks are in memory. It has tests only:
// that fifty sites elect, replicate and survive a partition, and what that costs
// a node, which is recorded as attributes of the test (testing.T.Attr) and which
// chaos/bench prints.
package sites
