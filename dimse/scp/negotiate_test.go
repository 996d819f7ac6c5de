package scp

import (
	"context"
	"slices"
	"testing"

	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dict"
)

const (
	ctClass   = "1.2.840.10008.5.1.4.1.1.2"
	futureCT  = "1.2.840.10008.5.1.4.1.1.999.1" // unregistered, under the storage root
	worklist  = "1.2.840.10008.5.1.4.31"
	jpeg2000  = "1.2.840.10008.1.2.4.90"
	jpip      = "1.2.840.10008.1.2.4.94"
	privateTS = "1.2.3.4.5.6"
	privateSC = "1.2.3.4.7"
)

// everything is a session that offers every service.
func everything() *Session {
	p := &provider{}
	return &Session{
		Echo: p, Store: p, Find: p, Move: p, Get: p, Commit: p,
		Committed: func(context.Context, *dimse.CommitmentResult) error { return nil },
		Options:   dimse.QueryOptions{Relational: true, CombinedDateTime: true, Fuzzy: true, Timezone: true},
	}
}

func TestOneSyntaxPerContextIsTheRequestorsFirstAcceptable(t *testing.T) {
	implicit, explicit, big := dict.ImplicitLittleEndian, dict.ExplicitLittleEndian, dict.ExplicitBigEndian
	deflated := dict.DeflatedExplicitLittleEndian
	for name, tt := range map[string]struct {
		class    string
		syntaxes []string
		result   byte
		syntax   string
	}{
		"storage takes the first":            {ctClass, []string{implicit, explicit}, accepted, implicit},
		"storage takes compressed":           {ctClass, []string{jpeg2000, explicit}, accepted, jpeg2000},
		"storage takes big endian":           {ctClass, []string{big}, accepted, big},
		"storage takes deflated":             {ctClass, []string{deflated}, accepted, deflated},
		"storage takes private syntaxes":     {ctClass, []string{privateTS}, accepted, privateTS},
		"storage refuses JPIP":               {ctClass, []string{jpip}, syntaxUnsupported, ""},
		"storage passes over JPIP":           {ctClass, []string{jpip, implicit}, accepted, implicit},
		"storage refuses unknown DICOM ones": {ctClass, []string{"1.2.840.10008.1.2.999"}, syntaxUnsupported, ""},
		"storage without syntaxes":           {ctClass, nil, syntaxUnsupported, ""},
		"private classes are storage":        {privateSC, []string{explicit}, accepted, explicit},
		"future classes are storage":         {futureCT, []string{explicit}, accepted, explicit},
		"worklist is not offered":            {worklist, []string{explicit}, abstractUnsupported, ""},
		"verification":                       {dimse.Verification, []string{implicit}, accepted, implicit},
		"verification is never compressed":   {dimse.Verification, []string{jpeg2000}, syntaxUnsupported, ""},
		"queries take big endian":            {dimse.StudyRoot.Class(dimse.Find), []string{deflated, big}, accepted, big},
		"patient/study only":                 {dimse.PatientStudyOnly.Class(dimse.Move), []string{implicit}, accepted, implicit},
		"commitment":                         {dimse.StorageCommitment, []string{implicit}, accepted, implicit},
	} {
		t.Run(name, func(t *testing.T) {
			r := &assoc.Request{Contexts: []assoc.Context{{ID: 1, Abstract: tt.class, Syntaxes: tt.syntaxes}}}
			got := Negotiate(r, everything()).Contexts[0]
			if got.Result != tt.result || got.Syntax != tt.syntax {
				t.Errorf("result %d syntax %q, want %d %q", got.Result, got.Syntax, tt.result, tt.syntax)
			}
		})
	}
}

func TestWhatASessionDoesNotProvideIsRefused(t *testing.T) {
	classes := []string{
		dimse.Verification, ctClass, dimse.StorageCommitment,
		dimse.PatientRoot.Class(dimse.Find), dimse.PatientRoot.Class(dimse.Move), dimse.PatientRoot.Class(dimse.Get),
	}
	r := &assoc.Request{}
	for i, class := range classes {
		r.Contexts = append(r.Contexts, assoc.Context{ID: byte(2*i + 1), Abstract: class, Syntaxes: []string{dict.ImplicitLittleEndian}})
	}
	for _, c := range Negotiate(r, &Session{}).Contexts {
		if c.Result != abstractUnsupported {
			t.Errorf("%s: result %d", c.Abstract, c.Result)
		}
	}
	for _, c := range Negotiate(r, everything()).Contexts {
		if c.Result != accepted {
			t.Errorf("%s: result %d", c.Abstract, c.Result)
		}
	}
}

func TestCommonExtendedNegotiationDeclaresStorage(t *testing.T) {
	r := &assoc.Request{
		Contexts: []assoc.Context{{ID: 1, Abstract: "1.2.840.10008.9.9.9", Syntaxes: []string{dict.ImplicitLittleEndian}}},
		Common:   []assoc.CommonExtended{{Class: "1.2.840.10008.9.9.9", ServiceClass: dimse.StorageService}},
	}
	if got := Negotiate(r, everything()).Contexts[0]; got.Result != accepted {
		t.Errorf("declared as storage: result %d", got.Result)
	}
	if !stores(r) {
		t.Error("an association for a class declared as storage stores")
	}
	r.Common[0].ServiceClass = "1.2.840.10008.4.999"
	if got := Negotiate(r, everything()).Contexts[0]; got.Result != abstractUnsupported {
		t.Errorf("declared as something else: result %d", got.Result)
	}
}

func TestRolesOfStorageAreGrantedForCGet(t *testing.T) {
	get := assoc.Context{ID: 1, Abstract: dimse.StudyRoot.Class(dimse.Get), Syntaxes: []string{dict.ImplicitLittleEndian}}
	ct := assoc.Context{ID: 3, Abstract: ctClass, Syntaxes: []string{jpeg2000, dict.ImplicitLittleEndian, dict.ExplicitLittleEndian}}
	storeless, getless := everything(), everything()
	storeless.Store, getless.Get = nil, nil
	for name, tt := range map[string]struct {
		session  *Session
		contexts []assoc.Context
		roles    []assoc.Role
		result   byte
		scu, scp bool
		syntax   string
	}{
		"none asked":                    {everything(), []assoc.Context{get, ct}, nil, accepted, true, false, jpeg2000},
		"SCP asked":                     {everything(), []assoc.Context{get, ct}, []assoc.Role{{Class: ctClass, SCP: true}}, accepted, false, true, dict.ExplicitLittleEndian},
		"both asked":                    {everything(), []assoc.Context{get, ct}, []assoc.Role{{Class: ctClass, SCU: true, SCP: true}}, accepted, true, true, dict.ExplicitLittleEndian},
		"both asked, storing forbidden": {storeless, []assoc.Context{get, ct}, []assoc.Role{{Class: ctClass, SCU: true, SCP: true}}, accepted, false, true, dict.ExplicitLittleEndian},
		"both asked, no C-GET offered":  {getless, []assoc.Context{get, ct}, []assoc.Role{{Class: ctClass, SCU: true, SCP: true}}, accepted, true, false, jpeg2000},
		"SCP asked, no C-GET proposed":  {everything(), []assoc.Context{ct}, []assoc.Role{{Class: ctClass, SCP: true}}, noReason, true, false, ""},
		"no role asked for":             {everything(), []assoc.Context{get, ct}, []assoc.Role{{Class: ctClass}}, noReason, true, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			contexts := Negotiate(&assoc.Request{Contexts: tt.contexts, Roles: tt.roles}, tt.session).Contexts
			got := contexts[len(contexts)-1]
			if got.Result != tt.result || got.SCU != tt.scu || got.SCP != tt.scp || got.Syntax != tt.syntax {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestAReporterOfCommitmentsGetsTheSCPRole(t *testing.T) {
	r := &assoc.Request{
		Contexts: []assoc.Context{{ID: 1, Abstract: dimse.StorageCommitment, Syntaxes: []string{dict.ImplicitLittleEndian}}},
		Roles:    []assoc.Role{{Class: dimse.StorageCommitment, SCP: true}},
	}
	if got := Negotiate(r, everything()).Contexts[0]; got.Result != accepted || got.SCU || !got.SCP {
		t.Errorf("got %+v", got)
	}
}

func TestExtendedNegotiationAnswersWhatBothWant(t *testing.T) {
	find, move := dimse.StudyRoot.Class(dimse.Find), dimse.StudyRoot.Class(dimse.Move)
	session := everything()
	session.Options.Fuzzy = false
	r := &assoc.Request{
		Extended: map[string][]byte{
			find: {1, 1, 1}, move: {1}, ctClass: {2, 0, 3, 0, 2, 0}, worklist: {1},
			dimse.PatientRoot.Class(dimse.Find): {1},
		},
	}
	for i, class := range []string{find, move, ctClass, worklist} {
		r.Contexts = append(r.Contexts, assoc.Context{ID: byte(2*i + 1), Abstract: class, Syntaxes: []string{dict.ImplicitLittleEndian}})
	}
	got := Negotiate(r, session).Extended
	want := map[string][]byte{find: {1, 1, 0}, move: {1}, ctClass: {2, 0, 3, 0, 0, 0}}
	if len(got) != len(want) {
		t.Errorf("answers %v", got)
	}
	for class, b := range want {
		if !slices.Equal(got[class], b) {
			t.Errorf("%s: %v, want %v", class, got[class], b)
		}
	}
}

func TestTheWindowIsTheSmallerOfBoth(t *testing.T) {
	for _, tt := range []struct{ asked, given, want uint16 }{
		{1, 0, 1}, {0, 0, defaultWindow}, {100, 0, defaultWindow}, {3, 8, 3}, {0, 5, 5}, {9, 5, 5},
	} {
		d := Negotiate(&assoc.Request{MaxInvoked: tt.asked, MaxPerformed: tt.asked}, &Session{Window: tt.given})
		if d.MaxInvoked != tt.want || d.MaxPerformed != tt.want {
			t.Errorf("%+v: %d %d", tt, d.MaxInvoked, d.MaxPerformed)
		}
	}
}

func TestOnlyAssociationsThatMayStoreUseTheReserve(t *testing.T) {
	ct := []assoc.Context{{ID: 1, Abstract: ctClass}}
	if !stores(&assoc.Request{Contexts: ct}) {
		t.Error("a storage context stores")
	}
	if stores(&assoc.Request{Contexts: ct, Roles: []assoc.Role{{Class: ctClass, SCP: true}}}) {
		t.Error("a C-GET requestor stores nothing")
	}
	if stores(&assoc.Request{Contexts: []assoc.Context{{ID: 1, Abstract: dimse.Verification}}}) {
		t.Error("an echo stores nothing")
	}
}
