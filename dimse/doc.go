// Package dimse is the vocabulary of the DIMSE services that Pelago speaks, as
// SCU and as SCP: the UIDs of the service classes, the query/retrieve
// information models (PS3.4 Annex C) with what is negotiated about them, and
// the storage commitment request and result (PS3.4 Annex J).
//
// It is pure: no I/O, no goroutine, no clock. The sub-packages do the work:
// [pelago/dimse/assoc] moves messages, [pelago/dimse/scp] serves,
// [pelago/dimse/scu] asks.
package dimse
