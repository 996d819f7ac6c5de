// Package dict is the DICOM data dictionary (PS3.6): tags, value
// representations, and the registered UIDs that the node must know apart.
// It is pure data and look-ups.
//
// tag_table.go and class_table.go are generated; syntax_table.go is written by
// hand, because what a transfer syntax means for an archive stands in no table.
package dict

//go:generate go run ./generate
