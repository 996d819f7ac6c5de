// Package patients keeps what a network decides about the identity of patients:
// which of their ids belong together, and how sites name the issuers of ids
// (DESIGN §10).
//
// A link says that two ids, each with its issuer, are of one person. Linked ids,
// directly or through others, are one timeline: whoever asks for one of them gets
// the studies of all. A link is a record of its own, signed with the decision that
// makes it, and is taken back by dropping it: nothing that was stored is changed by
// either. Without a link the same number of two issuers is two patients.
//
// An alias says which universal name stands behind a local name of an issuer at
// one site.
package patients
