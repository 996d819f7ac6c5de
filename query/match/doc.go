// Package match is attribute matching (PS3.4 C.2.2.2, DESIGN §9 Matching): the
// one engine of C-FIND, QIDO-RS and `pelago find`.
//
// It stands between the faces, which bring keys as a data set, and the
// candidates, which come from the catalogue's indexes or from headers. [Compile]
// is called once a query and does all checking and normalising; [Matcher.Match]
// is called for every candidate and allocates nothing for values in the default
// repertoire or UTF-8. [Matcher.Keys] tells a planner what to look up.
//
// # What matches what
//
//   - Zero-length keys and keys of asterisks alone are universal; they match
//     absent values too. Any other key needs a value.
//   - Any value of a multi-valued attribute may match. A key with several values
//     (backslash; for UI and CS comma too) matches when one of them does.
//   - Padding never counts: trailing spaces and nulls in every VR, leading spaces
//     in all but PN, LT, ST, UC, UR and UT.
//   - Person names ignore case, accents and punctuation (see [FoldName]). A key of
//     one component group matches any group of the value; a key of several
//     matches group by group. As in dcmtk and Orthanc a key without wildcards
//     must equal the whole group, trailing empty components aside: SMITH does not
//     find SMITH^JOHN; SMITH* , SMITH^* and fuzzy matching do. (dcm4chee appends
//     ^* by itself; PS3.4 C.2.2.2.1 asks for equality.)
//   - All other text is matched with case; free-text descriptions without it when
//     Options.FoldText says so (see [FoldText]).
//   - Wildcards stand in AE, CS, LO, LT, PN, SH, ST, UC, UR and UT only
//     (PS3.4 C.2.2.2.4). Elsewhere * and ? are characters like others.
//   - Dates and times are compared as points in time, whatever their notation
//     (YYYY.MM.DD and HH:MM:SS included). A key of less than full precision is the
//     range it leaves open; a value of less than full precision is the start of
//     it. A time range whose end lies before its start crosses midnight.
//   - IS, DS and the binary number VRs compare as numbers.
//   - A sequence matches when one of its items matches every key of the key's
//     item; an item without keys of its own is universal.
//
// # What is not a key
//
// Specific Character Set, Query/Retrieve Level and View, Timezone Offset, group
// lengths, private creators and groups below 0008 are never matched.
//
// The package is pure: no clock, no I/O, no goroutine. Values of keys never
// appear in errors, for they may be patient data.
package match
