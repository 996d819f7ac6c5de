// Package command is the DIMSE message layer (PS3.7 §9, §10, Annex E): command
// sets as typed values, and their encoding. It is pure.
//
// A command set is always implicit little endian and holds group 0000 only
// (PS3.7 §6.3.1), so that this package codes it alone, without a data
// dictionary. Which elements a command has is a data table (fields_table.go).
//
// [Set.Encode] is strict: exactly the elements of the command, in tag order,
// padded as PS3.5 says. [Parse] is lenient where real peers are careless (order,
// group length, odd lengths, unknown elements) and refuses what would leave the
// message without a meaning or an answer without a message id.
package command
