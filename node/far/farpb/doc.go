// Package farpb holds the messages by which nodes read each other's archives
// (docs/formats/peer.md).
package farpb

//go:generate protoc -I . -I ../../archive/archivepb --plugin=protoc-gen-go=../../../.ci/protoc-gen-go --go_out=. --go_opt=paths=source_relative far.proto
