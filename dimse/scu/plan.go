package scu

import (
	"slices"

	"pelago/dimse/assoc"
	"pelago/dimse/dict"
)

// maxContexts is how many presentation contexts an association can have: their
// ids are the odd numbers of a byte (PS3.8 §9.3.2.2).
const maxContexts = 128

// Kind is what instances have in common that one presentation context can
// carry: their SOP class and the transfer syntax they are stored in.
type Kind struct{ Class, Syntax string }

// StorePlan returns the presentation contexts to propose for storing instances
// of these kinds: per class one context for each stored syntax alone, so that
// the peer cannot choose another in its place, and one with explicit and
// implicit little endian, which every Storage SCP takes one of. What does not
// fit into the 128 contexts of an association goes into further ones; the
// contexts of a class stay together (a class has far fewer syntaxes than that;
// surplus ones go without). The order is that in which the kinds first appear.
func StorePlan(kinds []Kind) [][]assoc.Context {
	var classes []string
	syntaxes := map[string][]string{}
	for _, k := range kinds {
		if _, seen := syntaxes[k.Class]; !seen {
			classes = append(classes, k.Class)
		}
		if !slices.Contains(syntaxes[k.Class], k.Syntax) && len(syntaxes[k.Class]) < maxContexts-1 {
			syntaxes[k.Class] = append(syntaxes[k.Class], k.Syntax)
		}
	}
	var plan [][]assoc.Context
	var current []assoc.Context
	for _, class := range classes {
		if len(current)+len(syntaxes[class])+1 > maxContexts {
			plan = append(plan, current)
			current = nil
		}
		for _, syntax := range syntaxes[class] {
			current = append(current, assoc.Context{Abstract: class, Syntaxes: []string{syntax}})
		}
		current = append(current, assoc.Context{
			Abstract: class, Syntaxes: []string{dict.ExplicitLittleEndian, dict.ImplicitLittleEndian},
		})
	}
	if len(current) > 0 {
		plan = append(plan, current)
	}
	for _, contexts := range plan {
		number(contexts)
	}
	return plan
}

// number gives contexts the ids 1, 3, 5… and the default roles.
func number(contexts []assoc.Context) {
	for i := range contexts {
		contexts[i].ID = byte(2*i + 1)
	}
}
