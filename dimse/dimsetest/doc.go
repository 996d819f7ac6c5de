// Package dimsetest helps to test what speaks DICOM: a raw peer that plays a
// script of PDUs ([Peer]), a listener in memory ([Listener]), synthetic patients
// and instances that are the same for the same seed ([World], [Instance]), and dcmtk's
// programs ([Tool]).
//
// It depends on dimse/pdu only, so that every package above can use it.
package dimsetest
