// Package peer starts what the benchmarks measure, as separate processes on
// loopback: nodes of Pelago, Orthanc as shipped or without the stall of its TCP
// settings, dcmtk's tools, and the limits that our own network layer sets (a
// bucket that drops what it receives, one that syncs it, a file server).
//
// A process that was started is ended by Stop; one whose parent dies is ended
// by the kernel.
package peer
