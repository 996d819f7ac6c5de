// Package federate asks other nodes what only they know for a query: which of
// their instances match, and attributes that are not in the catalogue (DESIGN
// §8). Each node answers for its own instances with its own engine.
//
// # Wire
//
// POST /query/find takes a question about up to [query.MaxCandidates] series and
// streams frames with what is found, in the order of the series; POST
// /query/locate tells where SOP Instance UIDs are. Both are calls of the peer
// service (cluster/call), in protobuf (federatepb).
//
// # Silence
//
// A node that searches says so every second, so that a long search is not taken
// for a dead node: who says nothing for [Options.Patience] is silent. An answer
// that breaks off is taken up where it stopped, once for each time that it got
// any further.
//
// # Bounds
//
// A node serves [HandlerOptions.AtOnce] questions at once. It reads on only as
// fast as the asker takes frames, and gives an asker up that takes none for 30 s.
// What an asker holds is a frame a node, and what HTTP/2 lets come before.
package federate
