package match

import (
	"bytes"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// groups of a person name: alphabetic, ideographic, phonetic (PS3.5 §6.2.1).
const groups = 3

// components of a group: family, given and middle name, prefix, suffix.
const components = 5

// nameTest matches person names.
type nameTest struct {
	names []nameKey
}

// nameKey is one value of a name key. With one group it is for any group of a
// candidate, with several for the group of the same place; an empty group is
// universal.
type nameKey struct {
	groups []namePattern
	words  []word // fuzzy matching; of all groups
}

// namePattern matches one folded component group.
type namePattern struct {
	universal bool
	exact     string
	pattern   bool
	glob      glob
	carets    int
	marked    *glob // the pattern with its punctuation, if it holds ?
}

func compileNames(r *rule, values []string, options Options) error {
	t := &nameTest{}
	exact, patterns := 0, 0
	for _, v := range values {
		if len(v) > maxPattern {
			return fault.New(fault.Mismatch, "match: key %v is longer than %d bytes", r.key.Tag, maxPattern)
		}
		key := nameKey{}
		index := ""
		for _, g := range strings.SplitN(v, "=", groups) {
			p, folded := newNamePattern(g)
			key.groups = append(key.groups, p)
			if index == "" && !p.universal {
				index = folded
				if p.pattern {
					patterns++
				} else {
					exact++
				}
			}
		}
		if index == "" {
			return nil // punctuation alone: nothing is asked
		}
		if options.Fuzzy {
			key.words = newWords(strings.Map(dropWildcards, v))
			for _, w := range key.words {
				r.key.Values = append(r.key.Values, w.text)
			}
		} else {
			r.key.Values = append(r.key.Values, index)
		}
		t.names = append(t.names, key)
	}
	r.test, r.key.Kind = t, kindOf(exact, patterns)
	if options.Fuzzy {
		r.key.Kind = Phonetic
		if len(values) > 1 {
			r.key.Kind = Mixed
		}
	}
	return nil
}

func dropWildcards(r rune) rune {
	if r == '*' || r == '?' {
		return ' '
	}
	return r
}

func newNamePattern(group string) (namePattern, string) {
	folded := FoldName(group)
	p := namePattern{exact: folded, universal: strings.Trim(folded, "*^ ") == ""}
	if !p.universal && strings.ContainsAny(folded, "*?") {
		p.pattern, p.glob, p.carets = true, newGlob(folded), strings.Count(folded, "^")
		if strings.Contains(folded, "?") {
			marked := newGlob(string(appendFoldName(nil, []byte(group), true)))
			p.marked = &marked
		}
	}
	return p, folded
}

func (t *nameTest) match(c candidate, el *dicom.Element) bool {
	return eachValue(textOf(c.ds, el, dict.PN), dict.PN, t.matchValue)
}

func (t *nameTest) matchValue(v []byte) bool {
	if len(v) == 0 {
		return false
	}
	var parts [groups][]byte
	n := 0
	for rest := v; n < groups; n++ {
		i := bytes.IndexByte(rest, '=')
		if i < 0 || n == groups-1 {
			parts[n] = rest
			n++
			break
		}
		parts[n], rest = rest[:i], rest[i+1:]
	}
	for i := range t.names {
		k := &t.names[i]
		if k.match(parts[:n]) || len(k.words) > 0 && matchWords(k.words, v) {
			return true
		}
	}
	return false
}

func (k *nameKey) match(parts [][]byte) bool {
	if len(k.groups) == 1 {
		for _, part := range parts {
			if k.groups[0].match(part) {
				return true
			}
		}
		return false
	}
	for i := range k.groups {
		if k.groups[i].universal {
			continue
		}
		if i >= len(parts) || !k.groups[i].match(parts[i]) {
			return false
		}
	}
	return true
}

// match compares one component group of a candidate.
func (p *namePattern) match(part []byte) bool {
	if len(part) == 0 {
		return false
	}
	var room [128]byte
	name := appendFoldName(room[:0], part, false)
	if !p.pattern {
		return string(name) == p.exact
	}
	if p.glob.match(p.pad(name)) {
		return true
	}
	if p.marked == nil {
		return false
	}
	name = appendFoldName(room[:0], part, true)
	return p.marked.match(p.pad(name))
}

// pad gives a name the delimiters that the pattern has and the name, whose last
// components are empty, may leave out (PS3.5 §6.2.1.1).
func (p *namePattern) pad(name []byte) []byte {
	for n := bytes.Count(name, []byte("^")); n < min(p.carets, components-1); n++ {
		name = append(name, '^')
	}
	return name
}
