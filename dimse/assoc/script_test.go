package assoc

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dimsetest"
)

// echoHex is a C-ECHO-RQ, storeHex a C-STORE-RQ, for scripts.
var (
	echoHex  = hex.EncodeToString(echoRQ)
	storeHex = hex.EncodeToString(storeRQ)
)

const established = `
-> A-ASSOCIATE-RQ
<- A-ASSOCIATE-AC RAWPEER > PELAGO [1 0 1.2.840.10008.1.2] [3 0 1.2.840.10008.1.2]
`

// end is what an acceptor that reads everything sees.
type end struct {
	messages, bytes int
	err             error
	took            time.Duration
	a               *Association
}

// readAll is such an acceptor.
func readAll(ctx context.Context, conn net.Conn, config Config, decide func(context.Context, *Request) Decision) (e end) {
	start := time.Now()
	defer func() { e.took = time.Since(start) }()
	if e.a, e.err = Accept(ctx, conn, config, decide); e.err != nil {
		return e
	}
	for {
		m, err := e.a.Receive(ctx)
		if err != nil {
			e.err = err
			return e
		}
		e.messages++
		for m.Data != nil {
			b, err := m.Data.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				e.err = err
				return e
			}
			if len(b) == 0 {
				e.err = errors.New("Next returned no bytes and no error")
				return e
			}
			e.bytes += len(b)
		}
	}
}

// play plays a script to an acceptor and returns how that ended.
func play(t *testing.T, config Config, decide func(context.Context, *Request) Decision, script string) (e end) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ended := make(chan end, 1)
		go func() { ended <- readAll(t.Context(), here, config, decide) }()
		peer := dimsetest.NewPeer(t, there)
		peer.Play(script)
		e = <-ended
		there.Close()
		if e.a != nil {
			<-e.a.Done()
		}
	})
	return e
}

func TestAcceptorAnswersByTheStateTable(t *testing.T) {
	refuse := func(context.Context, *Request) Decision {
		return Decision{Reject: &Reject{RejectPermanent, RejectByUser, ReasonCalledTitle}}
	}
	long := strings.Repeat("00", 40000)
	tests := []struct {
		name   string
		decide func(context.Context, *Request) Decision
		script string
		err    string // of the end; "EOF" for a release
		kind   fault.Kind
		n      int // messages received
		bytes  int // of data sets
	}{
		{"release", acceptAll, established + "-> A-RELEASE-RQ\n<- A-RELEASE-RP\n-> close", "EOF", fault.Other, 0, 0},
		{"release, and the peer never closes", acceptAll, established + "-> A-RELEASE-RQ\n<- A-RELEASE-RP\n<- closed", "EOF", fault.Other, 0, 0},
		{"rejection", refuse, "-> A-ASSOCIATE-RQ\n<- A-ASSOCIATE-RJ 1 1 7\n-> close", "called AE title not recognized", fault.Denied, 0, 0},
		{"abort by the peer", acceptAll, established + "-> A-ABORT 0 0\n<- closed", "aborted by the peer (service-user)", fault.Unavailable, 0, 0},
		{"abort before a request", acceptAll, "-> A-ABORT 0 0\n<- closed", "aborted by the peer", fault.Unavailable, 0, 0},
		{"connection lost", acceptAll, established + "-> close", "connection lost", fault.Unavailable, 0, 0},
		{"data before a request", acceptAll, "-> P-DATA-TF [1 command last 00]\n<- A-ABORT 0 0\n-> close", "P-DATA-TF out of place", fault.Protocol, 0, 0},
		{"release before a request", acceptAll, "-> A-RELEASE-RQ\n<- A-ABORT 0 0\n-> close", "A-RELEASE-RQ out of place", fault.Protocol, 0, 0},
		{"no PDU at all", acceptAll, "-> bytes 474554202f20\n<- A-ABORT 0 0\n-> close", "does not exist", fault.Protocol, 0, 0},
		{"a request that claims 4 GB", acceptAll, "-> bytes 0100fffffffa\n<- A-ABORT 0 0\n-> close", "allowed are", fault.Invalid, 0, 0},
		{"a second request", acceptAll, established + "-> bytes 010000000044\n<- A-ABORT 2 2\n-> close", "A-ASSOCIATE-RQ out of place", fault.Protocol, 0, 0},
		{"an acceptance to the acceptor", acceptAll, established + "-> bytes 020000000044\n<- A-ABORT 2 2\n-> close", "A-ASSOCIATE-AC out of place", fault.Protocol, 0, 0},
		{"a rejection to the acceptor", acceptAll, established + "-> A-ASSOCIATE-RJ 1 1 1\n<- A-ABORT 2 2\n-> close", "A-ASSOCIATE-RJ out of place", fault.Protocol, 0, 0},
		{"a release reply that was not asked for", acceptAll, established + "-> A-RELEASE-RP\n<- A-ABORT 2 2\n-> close", "A-RELEASE-RP out of place", fault.Protocol, 0, 0},
		{"an unknown PDU", acceptAll, established + "-> bytes 080000000000\n<- A-ABORT 2 1\n-> close", "does not exist", fault.Protocol, 0, 0},
		{"a release of the wrong length", acceptAll, established + "-> bytes 050000000005\n<- A-ABORT 2 6\n-> close", "5 bytes", fault.Protocol, 0, 0},
		{"a data PDU longer than announced", acceptAll, established + "-> bytes 040000010001\n<- A-ABORT 2 6\n-> close", "65537 bytes", fault.Protocol, 0, 0},
		{"a data PDU that claims 4 GB", acceptAll, established + "-> bytes 0400ffffffff\n<- A-ABORT 2 6\n-> close", "4294967295 bytes", fault.Protocol, 0, 0},
		{"a data PDU without a value", acceptAll, established + "-> bytes 040000000000\n<- A-ABORT 2 6\n-> close", "0 bytes", fault.Protocol, 0, 0},
		{"a value longer than its PDU", acceptAll, established + "-> bytes 04000000000800000006010300\n<- A-ABORT 2 6\n-> close", "presentation data value of 6 bytes", fault.Protocol, 0, 0},
		{"a value without its head", acceptAll, established + "-> bytes 04000000000600000001010300\n<- A-ABORT 2 6\n-> close", "presentation data value", fault.Protocol, 0, 0},
		{"a context that was not accepted", acceptAll, established + "-> P-DATA-TF [5 command last " + echoHex + "]\n<- A-ABORT 2 6\n-> close", "context 5 was not accepted", fault.Protocol, 0, 0},
		{"a data set without a command", acceptAll, established + "-> P-DATA-TF [3 data last 00]\n<- A-ABORT 2 6\n-> close", "data set fragment where", fault.Protocol, 0, 0},
		{"a data set that no command announced", acceptAll, established + "-> P-DATA-TF [1 command last " + echoHex + "] [1 data last 00]\n<- A-ABORT 2 6\n-> close", "data set fragment where", fault.Protocol, 1, 0},
		{"a command inside a data set", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000] [3 command last " + echoHex + "]\n<- A-ABORT 2 6\n-> close", "command set fragment inside", fault.Protocol, 1, 2},
		{"a data set of another context", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [1 data last 0000]\n<- A-ABORT 2 6\n-> close", "contexts 3 and 1 mixed", fault.Protocol, 1, 0},
		{"a data set that changes its context", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000] [1 data last 00]\n<- A-ABORT 2 6\n-> close", "contexts 3 and 1 mixed", fault.Protocol, 1, 2},
		{"a command that changes its context", acceptAll, established + "-> P-DATA-TF [3 command 0000] [1 command last 0000]\n<- A-ABORT 2 6\n-> close", "contexts 3 and 1 mixed", fault.Protocol, 0, 0},
		{"a command longer than 64 KiB", acceptAll, established + "-> P-DATA-TF [1 command " + long + "]\n-> P-DATA-TF [1 command " + long + "]\n<- A-ABORT 2 6\n-> close", "longer than 65536", fault.Protocol, 0, 0},
		{"a command that is none", acceptAll, established + "-> P-DATA-TF [1 command last 080018000400000000000000]\n<- A-ABORT 2 6\n-> close", "is missing", fault.Protocol, 0, 0},
		{"a command cut short", acceptAll, established + "-> P-DATA-TF [1 command last 0000000804000000]\n<- A-ABORT 2 6\n-> close", "claims 4 bytes of 0", fault.Invalid, 0, 0},
		{"a release inside a data set", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000]\n-> A-RELEASE-RQ\n<- A-ABORT 2 2\n-> close", "inside a message", fault.Protocol, 1, 2},
		{"an abort inside a data set", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000]\n-> A-ABORT 2 0\n<- closed", "unexpected EOF in a data set: association aborted by the peer (service-provider)", fault.Unavailable, 1, 2},
		{"a connection lost inside a data set", acceptAll, established + "-> P-DATA-TF [3 command last " + storeHex + "] [3 data 0000]\n-> close", "unexpected EOF in a data set: connection lost", fault.Unavailable, 1, 2},
		{"fragments without bytes", acceptAll, established + "-> P-DATA-TF [3 command] [3 command last " + storeHex + "] [3 data] [3 data 0102] [3 data]\n-> P-DATA-TF [3 data last]\n-> A-RELEASE-RQ\n<- A-RELEASE-RP\n-> close", "EOF", fault.Other, 1, 2},
		{"several messages in a PDU", acceptAll, established + "-> P-DATA-TF [1 command last " + echoHex + "] [3 command last " + storeHex + "] [3 data last 01020304] [1 command last " + echoHex + "]\n-> A-RELEASE-RQ\n<- A-RELEASE-RP\n-> close", "EOF", fault.Other, 3, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := play(t, Config{MaxPDU: 65536}, tt.decide, tt.script)
			if e.err == nil || !strings.Contains(e.err.Error(), tt.err) || (tt.err == "EOF") != (e.err == io.EOF) {
				t.Errorf("error %v, want %s", e.err, tt.err)
			}
			if got := fault.KindOf(e.err); got != tt.kind {
				t.Errorf("kind %v, want %v", got, tt.kind)
			}
			if e.messages != tt.n || e.bytes != tt.bytes {
				t.Errorf("%d messages, %d bytes, want %d, %d", e.messages, e.bytes, tt.n, tt.bytes)
			}
		})
	}
}

func TestErrorsCanBeTakenApart(t *testing.T) {
	var abort *Aborted
	e := play(t, Config{}, acceptAll, established+"-> A-ABORT 2 5\n<- closed")
	if !errors.As(e.err, &abort) || *abort != (Aborted{2, 5, true}) {
		t.Errorf("peer's abort: %v", e.err)
	}
	e = play(t, Config{}, acceptAll, established+"-> bytes 090000000000\n<- A-ABORT 2 1\n-> close")
	if !errors.As(e.err, &abort) || *abort != (Aborted{2, 1, false}) {
		t.Errorf("our abort: %v", e.err)
	}
	e = play(t, Config{}, acceptAll, established+"-> P-DATA-TF [3 command last "+storeHex+"] [3 data 0000]\n-> A-ABORT 0 0\n<- closed")
	if !errors.Is(e.err, io.ErrUnexpectedEOF) || !errors.As(e.err, &abort) || errors.Is(e.err, io.EOF) {
		t.Errorf("data set cut short: %v", e.err)
	}
	var reject *Reject
	e = play(t, Config{}, func(context.Context, *Request) Decision {
		return Decision{Reject: &Reject{RejectTransient, RejectByPresentation, ReasonLocalLimit}}
	}, "-> A-ASSOCIATE-RQ\n<- A-ASSOCIATE-RJ 2 3 2\n-> close")
	if !errors.As(e.err, &reject) || !fault.Is(e.err, fault.Unavailable) {
		t.Errorf("rejection: %v", e.err)
	}
}

func TestProviderRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*dimsetest.Peer)
		want   string
	}{
		"another protocol version":       {func(p *dimsetest.Peer) { p.RQ.Version = 2 }, "<- A-ASSOCIATE-RJ 1 2 2"},
		"further protocol version bits":  {func(p *dimsetest.Peer) { p.RQ.Version = 3 }, "<- A-ASSOCIATE-AC…"},
		"another application context":    {func(p *dimsetest.Peer) { p.RQ.Application = "1.2.3" }, "<- A-ASSOCIATE-RJ 1 1 2"},
		"a maximum length of no use":     {func(p *dimsetest.Peer) { p.RQ.User.MaxLength = 6 }, "<- A-ABORT 2 6"},
		"no contexts":                    {func(p *dimsetest.Peer) { p.RQ.Contexts = nil }, "<- A-ASSOCIATE-AC RAWPEER > PELAGO"},
		"a context without any syntaxes": {func(p *dimsetest.Peer) { p.RQ.Contexts[0].Syntaxes = nil }, "<- A-ASSOCIATE-AC RAWPEER > PELAGO [1 4 ] [3 0 1.2.840.10008.1.2]"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				here, there := net.Pipe()
				go readAll(t.Context(), here, Config{}, func(ctx context.Context, r *Request) Decision {
					d := Decision{Contexts: r.Contexts}
					for i := range d.Contexts {
						if len(d.Contexts[i].Syntaxes) == 0 {
							d.Contexts[i].Result = TransferSyntaxUnsupported
							continue
						}
						d.Contexts[i].Syntax = d.Contexts[i].Syntaxes[0]
					}
					return d
				})
				peer := dimsetest.NewPeer(t, there)
				tt.change(peer)
				peer.Play("-> A-ASSOCIATE-RQ\n" + tt.want + "\n-> close")
			})
		})
	}
}

// A decision that the request does not allow is our own fault: nobody is told an
// untruth, and the connection does not stay.
func TestImpossibleDecisionAborts(t *testing.T) {
	e := play(t, Config{}, func(_ context.Context, r *Request) Decision {
		d := Decision{Contexts: r.Contexts}
		d.Contexts[0].Syntax = "1.2.3"
		return d
	}, "-> A-ASSOCIATE-RQ\n<- A-ABORT 0 0\n-> close")
	if e.err == nil || !strings.Contains(e.err.Error(), "not proposed") {
		t.Errorf("error %v", e.err)
	}
}

// script plays the acceptor's side to Dial and what f does then.
func dialScript(t *testing.T, script string, f func(context.Context, *Association) error) (err error, took time.Duration) { //nolint:staticcheck // the error is what is looked at
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ended := make(chan error, 1)
		start := time.Now()
		go func() {
			a, err := Dial(t.Context(), here, Config{}, Request{Called: "RAWPEER", Calling: "PELAGO", Contexts: []Context{
				{Abstract: verification, Syntaxes: []string{implicitLE}}, {Abstract: ctStorage, Syntaxes: []string{implicitLE}},
			}})
			if err == nil {
				err = f(t.Context(), a)
				a.Abort()
			}
			ended <- err
		}()
		dimsetest.NewPeer(t, there).Play("<- A-ASSOCIATE-RQ PELAGO > RAWPEER [1 1.2.840.10008.1.1 1.2.840.10008.1.2] [3 1.2.840.10008.5.1.4.1.1.2 1.2.840.10008.1.2]\n" + script)
		err = <-ended
		took = time.Since(start)
		there.Close()
	})
	return err, took
}

func TestRequestorAnswersByTheStateTable(t *testing.T) {
	release := func(ctx context.Context, a *Association) error { return a.Release(ctx) }
	receive := func(ctx context.Context, a *Association) error { _, err := a.Receive(ctx); return err }
	tests := []struct {
		name   string
		script string
		f      func(context.Context, *Association) error
		err    string // "" for none
	}{
		{"release", "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n-> A-RELEASE-RP\n<- closed", release, ""},
		{"rejection", "-> A-ASSOCIATE-RJ 2 3 1\n<- closed", release, "rejected transiently by the service-provider (presentation): temporary congestion"},
		{"abort as answer", "-> A-ABORT 2 0\n<- closed", release, "aborted by the peer"},
		{"connection lost as answer", "-> close", release, "connection lost"},
		{"a request as answer", "-> bytes 010000000044\n<- A-ABORT 2 2\n-> close", release, "A-ASSOCIATE-RQ out of place"},
		{"data as answer", "-> P-DATA-TF [1 command last 00]\n<- A-ABORT 2 2\n-> close", release, "P-DATA-TF out of place"},
		{"an answer cut short", "-> bytes 020000000044 0001\n-> close", release, "connection lost"},
		{"an answer that is none", "-> bytes 020000000046 " + strings.Repeat("00", 70) + "\n<- A-ABORT 2 6\n-> close", release, "stray bytes"},
		{"data while a release is under way", "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n-> P-DATA-TF [1 command last 0000] [3 data 11]\n-> A-RELEASE-RP\n<- closed", release, ""},
		{"release collision", "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n-> A-RELEASE-RQ\n<- A-RELEASE-RP\n-> A-RELEASE-RP\n<- closed", release, ""},
		{"release by the acceptor", "-> A-ASSOCIATE-AC\n-> A-RELEASE-RQ\n<- A-RELEASE-RP\n-> close", receive, "EOF"},
		{"abort instead of a release reply", "-> A-ASSOCIATE-AC\n<- A-RELEASE-RQ\n-> A-ABORT 0 0\n<- closed", release, "aborted by the peer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err, _ := dialScript(t, tt.script, tt.f)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// PS3.8 §7.2.2.7: in a collision the acceptor replies after the requestor has.
func TestReleaseCollisionAsAcceptor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		ended := make(chan error, 1)
		go func() {
			a, err := Accept(t.Context(), here, Config{}, acceptAll)
			if err == nil {
				err = a.Release(t.Context())
			}
			ended <- err
		}()
		dimsetest.NewPeer(t, there).Play(established + `
<- A-RELEASE-RQ
-> A-RELEASE-RQ
-> A-RELEASE-RP
<- A-RELEASE-RP
-> close`)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestRejectionsAndAbortsInWords(t *testing.T) {
	for want, err := range map[string]error{
		"association rejected permanently by the service-user: calling AE title not recognized":           &Reject{1, 1, 3},
		"association rejected permanently by the service-user: application context name not supported":    &Reject{1, 1, 2},
		"association rejected transiently by the service-user: no reason given":                           &Reject{2, 1, 1},
		"association rejected permanently by the service-provider (ACSE): protocol version not supported": &Reject{1, 2, 2},
		"association rejected transiently by the service-provider (presentation): local limit exceeded":   &Reject{2, 3, 2},
		"association rejected with result 9 by the source 8: reason 7":                                    &Reject{9, 8, 7},
		"association aborted here (service-provider): invalid PDU parameter value":                        &Aborted{2, 6, false},
		"association aborted by the peer (service-provider): unrecognized PDU parameter":                  &Aborted{2, 4, true},
		"association aborted by the peer (source 1, reason 3)":                                            &Aborted{1, 3, true},
		"association aborted by the peer (service-provider): reason 99":                                   &Aborted{2, 99, true},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
