// Package cachedpb holds the durable records of what a node keeps of other
// nodes.
package cachedpb

//go:generate protoc -I. -I../../archive/archivepb --plugin=protoc-gen-go=../../../.ci/protoc-gen-go --go_out=. --go_opt=paths=source_relative cached.proto
