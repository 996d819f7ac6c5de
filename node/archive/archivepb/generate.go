// Package archivepb holds the durable records of a node's archive.
package archivepb

//go:generate protoc --plugin=protoc-gen-go=../../../.ci/protoc-gen-go --go_out=. --go_opt=paths=source_relative archive.proto
