package assoc

// action is an action of PS3.8 tables 9-6 to 9-9.
type action byte

// The actions.
const (
	none action = iota
	ae1
	ae2
	ae3
	ae4
	ae5
	ae6
	ae7
	ae8
	dt1
	dt2
	ar1
	ar2
	ar3
	ar4
	ar5
	ar6
	ar7
	ar8
	ar9
	ar10
	aa1
	aa2
	aa3
	aa4
	aa5
	aa6
	aa7
	aa8
)

// actions say what each action does and the state after it. AE-6 and AR-8
// depend on more; [step] knows.
var actions = [...]struct {
	name    string
	effects effect
	next    state
}{
	none: {name: "–"},

	// Association establishment, table 9-6.
	ae1: {"AE-1", connect, sta4},
	ae2: {"AE-2", sendRQ, sta5},
	ae3: {"AE-3", indicate, sta6},
	ae4: {"AE-4", indicate | closeTransport, sta1},
	ae5: {"AE-5", startARTIM, sta2},
	ae6: {"AE-6", stopARTIM | indicate, sta3}, // not acceptable: send RJ, start ARTIM, Sta13
	ae7: {"AE-7", sendAC, sta6},
	ae8: {"AE-8", sendRJ | startARTIM, sta13},

	// Data transfer, table 9-7.
	dt1: {"DT-1", sendData, sta6},
	dt2: {"DT-2", indicate, sta6},

	// Association release, table 9-8.
	ar1:  {"AR-1", sendReleaseRQ, sta7},
	ar2:  {"AR-2", indicate, sta8},
	ar3:  {"AR-3", indicate | closeTransport, sta1},
	ar4:  {"AR-4", sendReleaseRP | startARTIM, sta13},
	ar5:  {"AR-5", stopARTIM, sta1},
	ar6:  {"AR-6", indicate, sta7},
	ar7:  {"AR-7", sendData, sta8},
	ar8:  {"AR-8", indicate, sta9}, // acceptor: Sta10
	ar9:  {"AR-9", sendReleaseRP, sta11},
	ar10: {"AR-10", indicate, sta12},

	// Association abort, table 9-9.
	aa1: {"AA-1", sendAbort | startARTIM, sta13},
	aa2: {"AA-2", stopARTIM | closeTransport, sta1},
	aa3: {"AA-3", indicateAbort | closeTransport, sta1},
	aa4: {"AA-4", indicateAbort, sta1},
	aa5: {"AA-5", stopARTIM, sta1},
	aa6: {"AA-6", 0, sta13},
	aa7: {"AA-7", sendAbort, sta13},
	aa8: {"AA-8", sendPAbort | indicateAbort | startARTIM, sta13},
}

// transitions is PS3.8 table 9-10, a row per state.
var transitions = [sta13 + 1][evt19 + 1]action{
	sta1: {evt1: ae1, evt5: ae5},
	sta2: {
		evt3: aa1, evt4: aa1, evt6: ae6, evt10: aa1, evt12: aa1, evt13: aa1,
		evt16: aa2, evt17: aa5, evt18: aa2, evt19: aa1,
	},
	sta3: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt7: ae7, evt8: ae8, evt10: aa8, evt12: aa8, evt13: aa8,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta4: {evt2: ae2, evt15: aa2, evt17: aa4},
	sta5: {
		evt3: ae3, evt4: ae4, evt6: aa8, evt10: aa8, evt12: aa8, evt13: aa8,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta6: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt9: dt1, evt10: dt2, evt11: ar1, evt12: ar2, evt13: aa8,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta7: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt10: ar6, evt12: ar8, evt13: ar3,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta8: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt9: ar7, evt10: aa8, evt12: aa8, evt13: aa8, evt14: ar4,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta9: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt10: aa8, evt12: aa8, evt13: aa8, evt14: ar9,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta10: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt10: aa8, evt12: aa8, evt13: ar10,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta11: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt10: aa8, evt12: aa8, evt13: ar3,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta12: {
		evt3: aa8, evt4: aa8, evt6: aa8, evt10: aa8, evt12: aa8, evt13: aa8, evt14: ar4,
		evt15: aa1, evt16: aa3, evt17: aa4, evt19: aa8,
	},
	sta13: {
		evt3: aa6, evt4: aa6, evt6: aa7, evt10: aa6, evt12: aa6, evt13: aa6,
		evt16: aa2, evt17: ar5, evt18: aa2, evt19: aa7,
	},
}
