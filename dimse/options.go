package dimse

// QueryOptions are the query/retrieve behaviours that an association agrees on
// by SOP Class Extended Negotiation (PS3.4 C.5.1.1, C.5.2.1, C.5.3.1). For
// C-MOVE and C-GET only Relational has a meaning.
type QueryOptions struct {
	Relational       bool // lower levels' keys without the upper unique keys
	CombinedDateTime bool // a date and its time match as one
	Fuzzy            bool // fuzzy semantic matching of person names
	Timezone         bool // dates and times are adjusted by (0008,0201)
}

// Bytes returns the service class application information of an operation:
// for C-FIND relational queries, date-time matching, fuzzy names, timezone
// adjustment and enhanced multi-frame conversion (never offered); for C-MOVE
// and C-GET relational retrieval and that conversion.
func (q QueryOptions) Bytes(o Operation) []byte {
	if o != Find {
		return []byte{flag(q.Relational), 0}
	}
	return []byte{flag(q.Relational), flag(q.CombinedDateTime), flag(q.Fuzzy), flag(q.Timezone), 0}
}

// ParseQueryOptions reads the service class application information; bytes that
// are absent mean no, bytes beyond those known are passed over.
func ParseQueryOptions(o Operation, b []byte) QueryOptions {
	at := func(i int) bool { return i < len(b) && b[i] == 1 }
	if o != Find {
		return QueryOptions{Relational: at(0)}
	}
	return QueryOptions{Relational: at(0), CombinedDateTime: at(1), Fuzzy: at(2), Timezone: at(3)}
}

// And returns what both sides want.
func (q QueryOptions) And(other QueryOptions) QueryOptions {
	return QueryOptions{
		Relational:       q.Relational && other.Relational,
		CombinedDateTime: q.CombinedDateTime && other.CombinedDateTime,
		Fuzzy:            q.Fuzzy && other.Fuzzy,
		Timezone:         q.Timezone && other.Timezone,
	}
}

func flag(on bool) byte {
	if on {
		return 1
	}
	return 0
}
