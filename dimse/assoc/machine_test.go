package assoc

import (
	"strings"
	"testing"

	"pelago/dimse/pdu"
)

// table910 is PS3.8 table 9-10 as the standard prints it: a row per event, a
// column per state, "next" being that of the action's definition in tables 9-6 to 9-9.
const table910 = `
        Sta1  Sta2  Sta3  Sta4  Sta5  Sta6  Sta7  Sta8  Sta9  Sta10 Sta11 Sta12 Sta13
Evt1    AE-1  .     .     .     .     .     .     .     .     .     .     .     .
Evt2    .     .     .     AE-2  .     .     .     .     .     .     .     .     .
Evt3    .     AA-1  AA-8  .     AE-3  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt4    .     AA-1  AA-8  .     AE-4  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt5    AE-5  .     .     .     .     .     .     .     .     .     .     .     .
Evt6    .     AE-6  AA-8  .     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
Evt7    .     .     AE-7  .     .     .     .     .     .     .     .     .     .
Evt8    .     .     AE-8  .     .     .     .     .     .     .     .     .     .
Evt9    .     .     .     .     .     DT-1  .     AR-7  .     .     .     .     .
Evt10   .     AA-1  AA-8  .     AA-8  DT-2  AR-6  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt11   .     .     .     .     .     AR-1  .     .     .     .     .     .     .
Evt12   .     AA-1  AA-8  .     AA-8  AR-2  AR-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt13   .     AA-1  AA-8  .     AA-8  AA-8  AR-3  AA-8  AA-8  AR-10 AR-3  AA-8  AA-6
Evt14   .     .     .     .     .     .     .     AR-4  AR-9  .     .     AR-4  .
Evt15   .     .     AA-1  AA-2  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  .
Evt16   .     AA-2  AA-3  .     AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-2
Evt17   .     AA-5  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AR-5
Evt18   .     AA-2  .     .     .     .     .     .     .     .     .     .     AA-2
Evt19   .     AA-1  AA-8  .     AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
`

// next is the state after each action (PS3.8 tables 9-6 to 9-9); AE-6 and AR-8
// have two.
var next = map[string]state{
	"AE-1": sta4, "AE-2": sta5, "AE-3": sta6, "AE-4": sta1, "AE-5": sta2, "AE-7": sta6, "AE-8": sta13,
	"DT-1": sta6, "DT-2": sta6,
	"AR-1": sta7, "AR-2": sta8, "AR-3": sta1, "AR-4": sta13, "AR-5": sta1, "AR-6": sta7, "AR-7": sta8,
	"AR-9": sta11, "AR-10": sta12,
	"AA-1": sta13, "AA-2": sta1, "AA-3": sta1, "AA-4": sta1, "AA-5": sta1, "AA-6": sta13, "AA-7": sta13, "AA-8": sta13,
}

func TestEveryCellOfTheStateTable(t *testing.T) {
	rows := strings.Split(strings.TrimSpace(table910), "\n")[1:]
	if len(rows) != int(evt19) {
		t.Fatalf("%d events", len(rows))
	}
	for r, row := range rows {
		cells := strings.Fields(row)[1:]
		if len(cells) != int(sta13) {
			t.Fatalf("%d states in %s", len(cells), row)
		}
		for c, want := range cells {
			for _, f := range []facts{{}, {requestor: true}, {acceptable: true}, {true, true}} {
				s, e := state(c+1), event(r+1)
				got, effects, to, ok := step(s, e, f)
				if want == "." {
					if ok || got != none || effects != 0 || to != s {
						t.Errorf("Sta%d Evt%d: %s, want no cell", s, e, actions[got].name)
					}
					continue
				}
				wantTo := next[want]
				switch want {
				case "AE-6":
					if wantTo = sta13; f.acceptable {
						wantTo = sta3
					}
				case "AR-8":
					if wantTo = sta10; f.requestor {
						wantTo = sta9
					}
				}
				if !ok || actions[got].name != want || to != wantTo {
					t.Errorf("Sta%d Evt%d %+v: %s to Sta%d, want %s to Sta%d", s, e, f, actions[got].name, to, want, wantTo)
				}
			}
		}
	}
}

// The effects of each action, from the words of PS3.8 tables 9-6 to 9-9.
func TestEffectsOfEveryAction(t *testing.T) {
	want := map[action]effect{
		ae1: connect, ae2: sendRQ, ae3: indicate, ae4: indicate | closeTransport, ae5: startARTIM,
		ae6: stopARTIM | indicate, ae7: sendAC, ae8: sendRJ | startARTIM,
		dt1: sendData, dt2: indicate,
		ar1: sendReleaseRQ, ar2: indicate, ar3: indicate | closeTransport, ar4: sendReleaseRP | startARTIM,
		ar5: stopARTIM, ar6: indicate, ar7: sendData, ar8: indicate, ar9: sendReleaseRP, ar10: indicate,
		aa1: sendAbort | startARTIM, aa2: stopARTIM | closeTransport, aa3: indicateAbort | closeTransport,
		aa4: indicateAbort, aa5: stopARTIM, aa6: 0, aa7: sendAbort, aa8: sendPAbort | indicateAbort | startARTIM,
	}
	for a := ae1; a <= aa8; a++ {
		if actions[a].effects != want[a] {
			t.Errorf("%s: effects %b, want %b", actions[a].name, actions[a].effects, want[a])
		}
	}
	if _, effects, _, _ := step(sta2, evt6, facts{}); effects != stopARTIM|sendRJ|startARTIM {
		t.Errorf("AE-6 of what is not acceptable: effects %b", effects)
	}
}

func TestEventsOfPDUs(t *testing.T) {
	for kind, want := range map[pdu.Type]event{
		1: evt6, 2: evt3, 3: evt4, 4: evt10, 5: evt12, 6: evt13, 7: evt16, 0: evt19, 8: evt19, 0xFF: evt19,
	} {
		if got := received(kind); got != want {
			t.Errorf("%v: Evt%d, want Evt%d", kind, got, want)
		}
	}
}
