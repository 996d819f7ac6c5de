// Package catalogpb is the protobuf form of the entries of the log and of member
// records. The generated code is committed, so that a build needs no protoc.
package catalogpb

//go:generate sh generate.sh
