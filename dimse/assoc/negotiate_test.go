package assoc

import (
	"bytes"
	"context"
	"net"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"pelago/dimse/pdu"
)

// negotiate returns what the acceptor was asked, and both ends' associations.
func negotiate(t *testing.T, request Request, decide func(*Request) Decision) (asked Request, scp, scu *Association) {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan error)
	go func() {
		var err error
		scp, err = Accept(t.Context(), here, Config{MaxPDU: 30000, UserInfo: UserInfo{"1.2.3", "SCP"}}, func(_ context.Context, r *Request) Decision {
			asked = *r
			return decide(r)
		})
		done <- err
	}()
	scu, err := Dial(t.Context(), there, Config{MaxPDU: 20000, UserInfo: UserInfo{"1.2.4", "SCU"}}, request)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go scp.Receive(t.Context())
	scu.Release(t.Context())
	<-scp.Done()
	return asked, scp, scu
}

func TestNegotiationIsSeenAlikeAtBothEnds(t *testing.T) {
	const commitment, query = "1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1"
	request := Request{
		Called: "PELAGO", Calling: "ALL",
		Contexts: []Context{
			{Abstract: verification, Syntaxes: []string{implicitLE}},
			{Abstract: ctStorage, Syntaxes: []string{explicitLE, implicitLE}},
			{Abstract: commitment, Syntaxes: []string{implicitLE}},
			{Abstract: query, Syntaxes: []string{implicitLE}},
			{Abstract: "1.2.3.4", Syntaxes: []string{"1.2.3.5"}},
		},
		Roles:    []Role{{ctStorage, true, true}, {commitment, false, true}, {query, true, true}},
		Extended: map[string][]byte{query: {1, 1, 1}, ctStorage: {2}},
		Common:   []CommonExtended{{"1.2.3.4", "1.2.840.10008.4.2", []string{"1.2.5", "1.2.6"}}},
		Identity: &Identity{Type: 2, ResponseRequested: true, Primary: []byte("user"), Secondary: []byte("secret")}, MaxInvoked: 10, MaxPerformed: 0,
	}
	synctest.Test(t, func(t *testing.T) {
		asked, scp, scu := negotiate(t, request, func(r *Request) Decision {
			return Decision{
				Contexts: []Context{
					{ID: 1, Syntax: implicitLE},
					{ID: 3, Syntax: implicitLE, SCU: true, SCP: true},
					{ID: 5, Syntax: implicitLE, SCU: true, SCP: true}, // SCU was not proposed
					{ID: 7, Syntax: implicitLE, SCU: true},
					{ID: 9, Result: AbstractSyntaxUnsupported},
				},
				Extended:   map[string][]byte{query: {1, 0, 1}, "1.9.9": {1}}, // the latter was not asked for
				MaxInvoked: 20, MaxPerformed: 5, IdentityResponse: []byte{},
			}
		})
		if asked.Called != "PELAGO" || asked.Calling != "ALL" || asked.MaxPDU != 20000 || asked.UserInfo != (UserInfo{"1.2.4", "SCU"}) ||
			asked.MaxInvoked != 10 || asked.MaxPerformed != 0 || !reflect.DeepEqual(asked.Roles, request.Roles) ||
			!reflect.DeepEqual(asked.Extended, request.Extended) || !reflect.DeepEqual(asked.Common, request.Common) ||
			!reflect.DeepEqual(asked.Identity, request.Identity) {
			t.Errorf("asked %+v", asked)
		}
		want := []Context{
			{1, verification, []string{implicitLE}, 0, implicitLE, true, false},
			{3, ctStorage, []string{explicitLE, implicitLE}, 0, implicitLE, true, true},
			{5, commitment, []string{implicitLE}, 0, implicitLE, false, true},
			{7, query, []string{implicitLE}, 0, implicitLE, true, false},
			{9, "1.2.3.4", []string{"1.2.3.5"}, AbstractSyntaxUnsupported, "", true, false},
		}
		for name, a := range map[string]*Association{"acceptor": scp, "requestor": scu} {
			if !reflect.DeepEqual(a.Contexts(), want) {
				t.Errorf("%s: contexts\n%+v\nwant\n%+v", name, a.Contexts(), want)
			}
			if i, p := a.Window(); i != 10 || p != 5 {
				t.Errorf("%s: window %d, %d", name, i, p)
			}
			if !reflect.DeepEqual(a.Extended(), map[string][]byte{query: {1, 0, 1}}) {
				t.Errorf("%s: extended %v", name, a.Extended())
			}
			if _, ok := a.Context(9); ok {
				t.Errorf("%s: a refused context is there", name)
			}
			if c, ok := a.Context(3); !ok || c.Abstract != ctStorage {
				t.Errorf("%s: context 3 %+v", name, c)
			}
		}
		if scu.sendMax != 30000 || scp.sendMax != 20000 {
			t.Errorf("send at most %d, %d", scu.sendMax, scp.sendMax)
		}
		if scu.Peer() != (UserInfo{"1.2.3", "SCP"}) || scp.Peer() != (UserInfo{"1.2.4", "SCU"}) {
			t.Errorf("peers %v, %v", scu.Peer(), scp.Peer())
		}
	})
}

func TestNothingNegotiatedIsTheDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, scp, scu := negotiate(t, twoContexts(), func(r *Request) Decision {
			if r.MaxInvoked != 1 || r.MaxPerformed != 1 || r.Identity != nil || r.Extended != nil {
				t.Errorf("request %+v", r)
			}
			// Roles and a window that nobody proposed have no effect.
			return Decision{Contexts: []Context{{ID: 3, Syntax: explicitLE, SCP: true}}, MaxInvoked: 9, MaxPerformed: 9,
				Extended: map[string][]byte{ctStorage: {1}}, IdentityResponse: []byte("x")}
		})
		want := []Context{
			{1, verification, []string{implicitLE}, UserRejection, "", true, false},
			{3, ctStorage, []string{explicitLE, implicitLE}, 0, explicitLE, true, false},
		}
		for _, a := range []*Association{scp, scu} {
			if !reflect.DeepEqual(a.Contexts(), want) {
				t.Errorf("contexts %+v", a.Contexts())
			}
			if i, p := a.Window(); i != 1 || p != 1 {
				t.Errorf("window %d, %d", i, p)
			}
			if a.Extended() != nil {
				t.Errorf("extended %v", a.Extended())
			}
		}
	})
}

func TestWindowIsNeverWiderThanProposed(t *testing.T) {
	for _, tt := range []struct{ proposed, decided, want uint16 }{
		{1, 0, 1}, {1, 9, 1}, {5, 0, 1}, {5, 3, 3}, {5, 9, 5}, {0, 0, 1}, {0, 7, 7}, {0, 65535, 65535},
	} {
		if got := narrower(tt.proposed, tt.decided); got != tt.want {
			t.Errorf("proposed %d, decided %d: %d, want %d", tt.proposed, tt.decided, got, tt.want)
		}
	}
}

func TestAcceptanceOfWhatWasNotProposedIsNone(t *testing.T) {
	request := &Request{Contexts: []Context{{ID: 1, Abstract: ctStorage, Syntaxes: []string{implicitLE}}, {ID: 3, Abstract: ctStorage, Syntaxes: []string{implicitLE}}}}
	request.setProposedRoles()
	got := agree(request, &pdu.Associate{
		Contexts: []pdu.Context{{ID: 1, Syntaxes: []string{explicitLE}}, {ID: 7, Syntaxes: []string{implicitLE}}},
		User:     pdu.User{Roles: []pdu.Role{{Class: ctStorage, SCU: false, SCP: true}}},
	})
	if got[0].Result != TransferSyntaxUnsupported || got[1].Result != NoReason || got[0].SCP || !got[0].SCU {
		t.Errorf("%+v", got)
	}
}

func TestDialRefusesWhatCannotBeEncoded(t *testing.T) {
	many := make([]Context, 129)
	for name, request := range map[string]Request{
		"129 contexts":      {Contexts: many},
		"a title too long":  {Called: "SEVENTEEN_LETTERS"},
		"an even id":        {Contexts: []Context{{ID: 2}}},
		"an id twice":       {Contexts: []Context{{ID: 1}, {ID: 1}}},
		"a UID too long":    {Contexts: []Context{{Abstract: string(bytes.Repeat([]byte("1"), 65))}}},
		"identity too long": {Identity: &Identity{Type: 1, Primary: make([]byte, 70000)}},
	} {
		here, there := net.Pipe()
		if _, err := Dial(t.Context(), here, Config{}, request); err == nil {
			t.Errorf("%s: no error", name)
		}
		there.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := there.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%s: the connection stays open", name)
		}
	}
}
