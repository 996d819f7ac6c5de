package query

import (
	"context"
	"iter"

	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// Probe is what a query wants to know of the instances of series that another
// node holds: what the catalogue cannot tell.
type Probe struct {
	// Keys are the query's, in explicit little endian and ISO_IR 192; those of
	// Match decide about an instance, the others say where private attributes are.
	Keys             *dicom.Dataset
	Fuzzy            bool // as in [Query]
	CombinedDateTime bool
	Timezone         bool
	FoldText         bool
	Match            []dict.Tag
	// Return lists attributes of the header to answer, All asks for every one that
	// is not bulk. Those of Match come along.
	Return []dict.Tag
	All    bool
	// Instances limits the answer to these SOP Instance UIDs; none: all.
	Instances []string
}

// Candidate is a series that a probe is about.
type Candidate struct {
	Study, Series string
	Return        []dict.Tag // besides those of the probe
	First         bool       // the first instance that matches is enough
	After         string     // only SOP Instance UIDs above it
}

// Found is an instance that a probe found. One that does not match may be among
// them, none that matches is left out.
type Found struct {
	Candidate    int // index of its series
	Instance     Instance
	Availability Availability // of the node that found it
	// Header has the attributes that were asked for in its Dataset, in explicit
	// little endian and ISO_IR 192, and nothing else; nil if none were.
	Header *dicom.Header
}

// Prober answers probes from a node's own instances.
type Prober interface {
	// Probe yields what it finds in the order of the candidates, and of each in
	// ascending order of SOP Instance UIDs. fault.Mismatch for keys that cannot be
	// used.
	Probe(ctx context.Context, p Probe, candidates []Candidate) iter.Seq2[Found, error]
	// Locate returns the instances with SOP Instance UIDs.
	Locate(ctx context.Context, sops []string) ([]Instance, error)
}

// Node is a member of the network.
type Node struct{ ID, Site string }

// Peers are the other nodes of the network, asked one by one. Who does not
// answer in time is fault.Unavailable.
type Peers interface {
	// Probe is [Prober.Probe] of a node. Answers come while they are taken, so
	// that several nodes search at once; the candidates of a call are bounded by
	// [MaxCandidates].
	Probe(ctx context.Context, node string, p Probe, candidates []Candidate) iter.Seq2[Found, error]
	// Locate is [Prober.Locate] of a node, of at most [MaxCandidates] UIDs.
	Locate(ctx context.Context, node string, sops []string) ([]Instance, error)
	// Nodes returns the nodes that may hold instances, but for this one.
	Nodes() []Node
	// Availability returns how what a node holds can be had now. A hint that costs
	// nothing.
	Availability(node string) Availability
}

// MaxCandidates bounds the series, and the SOP Instance UIDs, of one probe.
const MaxCandidates = 4096
