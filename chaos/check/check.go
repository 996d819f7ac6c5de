package check

import (
	"encoding/hex"
	"fmt"
)

// Node names a node of the history.
type Node string

// Hash is what stands for a content: BLAKE3, for instances.
type Hash [32]byte

// String returns the first eight digits, to tell hashes apart by eye.
func (h Hash) String() string { return hex.EncodeToString(h[:4]) }

// Rule is what a history may violate.
type Rule uint8

// The rules.
const (
	Lost      Rule = iota // acknowledged, and not returned
	Changed               // returned with a content that was not stored under its name
	Invented              // returned, and never stored
	Revived               // returned after its deletion was acknowledged
	Disagreed             // two nodes return different things under one name
	Twice                 // a record applied again
	Skipped               // a record applied before one that precedes it
	Forged                // a record applied that was not logged so
	Unapplied             // a record that a node never applied
	Diverged              // equal applied index, other state
	Stale                 // older than the answer says
)

var rules = [...]string{
	"lost", "changed", "invented", "revived", "disagreed", "applied twice",
	"skipped", "forged", "unapplied", "diverged", "staler than claimed",
}

// String returns the rule in words.
func (r Rule) String() string {
	if int(r) < len(rules) {
		return rules[r]
	}
	return fmt.Sprintf("rule %d", uint8(r))
}

// Violation is one place where a history breaks a rule.
type Violation struct {
	Rule Rule
	Node Node   // where it was seen; "": nowhere in particular
	What string // the name of the thing
	Note string // the particulars
}

// String returns the violation on one line.
func (v Violation) String() string {
	s := v.Rule.String() + ": " + v.What
	if v.Node != "" {
		s += " at " + string(v.Node)
	}
	if v.Note != "" {
		s += ": " + v.Note
	}
	return s
}
