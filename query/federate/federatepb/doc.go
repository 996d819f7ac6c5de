// Package federatepb is the protobuf form of what nodes ask each other for
// queries. The generated code is committed, so that a build needs no protoc.
package federatepb

//go:generate sh generate.sh
