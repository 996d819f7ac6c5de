// Package e2e proves the promises of a site, and of sites that join, with real
// processes: tests that start `pelago serve`, speak to it as hospitals' machines
// do (our own verbatim client, dcmtk, Orthanc, plain HTTP), break it, and start it
// again on what it left behind. It has tests only; package pelago/chaos/proc runs
// the nodes.
//
// What is proved where:
//
//	roundtrip_test.go   every valid sample goes in and comes out byte for byte
//	refusal_test.go     every broken sample is refused, and nothing of it stays
//	duplicate_test.go   samples that share a UID: same, rendition, quarantine
//	dcmtk_test.go       dcmtk's programs as clients and as destinations
//	orthanc_test.go     Orthanc on either side
//	metadata_test.go    WADO-RS metadata against dcm2json
//	commitment_test.go  storage commitment, over restarts too
//	kill_test.go        SIGKILL under load
//	disk_test.go        a full disk
//	hostile_test.go     peers that mean harm
//	damage_test.go      rotten and missing tables
//	lifecycle_test.go   locks, versions, refusals to start, clean ends
//	cli_test.go         the command line
//	network_test.go     sites join, come back, are removed; strangers at their port
//	partition_test.go   networks in trouble: partitions, kills, nodes that stand still
//	peer_test.go        a member that lies; certificates of other networks
//
// The binary is built once per run. Tests that need dcmtk, Orthanc, the samples
// or root (to mount a small file system) are skipped, loudly, where these are
// missing, and fail there when CI is set.
//
// With -short the kill test runs two rounds and the metadata test fewer
// samples. These variables make runs longer (they are not passed on to nodes,
// which refuse variables they do not know):
//
//	E2E_KILLS=50        rounds of the kill test; 5 unless set
//	E2E_TROUBLES=40     troubles of a network of five sites, of a random seed; a
//	                    fixed few at three sites unless set
//	E2E_SEED=1234       the seed that a failed kill test, or network in trouble, printed
package e2e
