// Package assoc is the DICOM upper layer (PS3.8): associations over a
// connection, negotiated, bounded, and driven by a state machine that is a data
// table.
//
// # Parts
//
// The state machine of PS3.8 §9.2 is data (machine_table.go) and a pure step
// (machine.go): state and event give action, effects and next state. Everything
// else is a thin driver over a [net.Conn] that turns PDUs, calls and
// deadlines into events and carries out the effects.
//
// [Accept] and [Dial] negotiate (negotiate.go is pure) and return an
// [Association], which carries DIMSE messages: [Association.Receive] gives a
// command set and its data set as a stream, [Association.Send] takes them.
// What a command means is the business of dimse/command, dimse/scp and
// dimse/scu.
//
// # Bounds
//
// An A-ASSOCIATE is read up to [pelago/dimse/pdu.MaxAssociateBytes], a command
// set up to [pelago/dimse/command.MaxBytes], a P-DATA-TF never as a whole: its
// fragments are handed out of one buffer per association. A PDU longer than
// announced ends the association before its body is read.
//
// # Concurrency
//
// An association starts no goroutine of its own but for a moment: PDUs are read
// on the goroutine that calls Receive or reads the data set, written on the one
// that calls Send, or by a timer what [Association.SendSoon] left to wait for
// more; none waits for the other. An end by the peer is therefore noticed by
// whoever reads or writes next. The semaphores reading and writing make those
// rights exclusive; mu guards the state and the deadlines and is never held over I/O.
//
// # Ends
//
// Whatever ends an association first is its cause; every later call reports it.
// Deadlines, cancelled contexts, violations of the protocol and [Association.Abort] send
// A-ABORT where a whole PDU boundary allows it, give the peer a moment to read
// it, and close the connection.
package assoc
