// Package config is a node's configuration: a TOML file, then PELAGO_*
// variables, then flags, each overriding the one before. Unknown keys are
// errors: a misspelled setting must never pass silently for its default.
//
// The AE registry is not configuration; it is edited while the node runs.
package config
