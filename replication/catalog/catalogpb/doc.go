// Package catalogpb is the protobuf form of catalogue commands and journal
// batches. The generated code is committed, so that a build needs no protoc.
package catalogpb

//go:generate sh generate.sh
