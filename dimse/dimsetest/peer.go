package dimsetest

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"pelago/dimse/pdu"
)

// maxPeerPDU bounds what a peer reads: a test that sends more is wrong.
const maxPeerPDU = 8 << 20

// Peer is the other end of a connection, played from a script rather than by
// an implementation, so that it can break every rule. Its methods fail the
// test; like all that do they belong on the test's own goroutine.
type Peer struct {
	t    testing.TB
	conn net.Conn
	RQ   pdu.Associate // what "-> A-ASSOCIATE-RQ" sends
	AC   pdu.Associate // what "-> A-ASSOCIATE-AC" sends
	log  []string
}

// NewPeer returns a peer that proposes, and answers, context 1 for
// Verification and 3 for CT storage, both in implicit little endian.
func NewPeer(t testing.TB, conn net.Conn) *Peer {
	user := pdu.User{MaxLength: 16384, ImplementationClassUID: "1.2.3.4", ImplementationVersion: "RAWPEER"}
	base := pdu.Associate{
		Version: pdu.Version, Called: "PELAGO", Calling: "RAWPEER", Application: pdu.ApplicationContext, User: user,
	}
	p := &Peer{t: t, conn: conn, RQ: base, AC: base}
	for i, class := range []string{Verification, CTImageStorage} {
		id := byte(2*i + 1)
		p.RQ.Contexts = append(p.RQ.Contexts, pdu.Context{ID: id, Abstract: class, Syntaxes: []string{ImplicitLittleEndian}})
		p.AC.Contexts = append(p.AC.Contexts, pdu.Context{ID: id, Syntaxes: []string{ImplicitLittleEndian}})
	}
	return p
}

// Play plays a script line by line. Empty lines and lines that start with #
// are passed over.
//
//	-> A-ASSOCIATE-RQ             the peer's RQ
//	-> A-ASSOCIATE-AC             the peer's AC
//	-> A-ASSOCIATE-RJ 1 1 7       result, source, reason
//	-> A-RELEASE-RQ
//	-> A-RELEASE-RP
//	-> A-ABORT 0 0                source, reason
//	-> P-DATA-TF [1 command last 0000…] [3 data 41 42]
//	                              context id, kind, optionally last, bytes in hexadecimal
//	-> bytes 07 00                any bytes
//	-> close                      closes the connection
//	<- A-ABORT 2 1                the next PDU must be described so; see [Describe]
//	<- A-ASSOCIATE-AC…            … stands for anything
//	<- closed                     the connection must be closed
//	.. 30s                        waits, in virtual time under testing/synctest
func (p *Peer) Play(script string) {
	p.t.Helper()
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case verb == "->" && rest == "close":
			p.conn.Close()
		case verb == "->":
			p.Write(p.compose(rest))
		case verb == "<-":
			got := p.next()
			want, open := strings.CutSuffix(rest, "…")
			if got != rest && (!open || !strings.HasPrefix(got, want)) {
				p.t.Fatalf("transcript:\n%s\ngot  <- %s\nwant <- %s", strings.Join(p.log, "\n"), got, rest)
			}
			line = "<- " + got
		case verb == "..":
			d, err := time.ParseDuration(rest)
			if err != nil {
				p.t.Fatal(err)
			}
			time.Sleep(d)
		default:
			p.t.Fatalf("no step of a script: %s", line)
		}
		p.log = append(p.log, line)
	}
}

// Write sends bytes as they are.
func (p *Peer) Write(b []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatalf("transcript:\n%s\nsending %d bytes: %v", strings.Join(p.log, "\n"), len(b), err)
	}
}

// Read returns the next PDU whole, io.EOF when the connection was closed.
func (p *Peer) Read() ([]byte, error) {
	b := make([]byte, pdu.HeaderBytes)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return nil, err
	}
	h := pdu.ParseHeader(b)
	if h.Length > maxPeerPDU {
		return nil, fmt.Errorf("%v of %d bytes", h.Type, h.Length)
	}
	b = append(b, make([]byte, h.Length)...)
	_, err := io.ReadFull(p.conn, b[pdu.HeaderBytes:])
	return b, err
}

// next describes the next PDU, or the end.
func (p *Peer) next() string {
	b, err := p.Read()
	switch {
	case err == nil:
		return Describe(b)
	case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed):
		return "closed"
	}
	return err.Error()
}

// compose makes the PDU of a script's line.
func (p *Peer) compose(line string) []byte {
	p.t.Helper()
	name, rest, _ := strings.Cut(line, " ")
	var b []byte
	var err error
	switch name {
	case "A-ASSOCIATE-RQ":
		b, err = p.RQ.AppendRQ(nil)
	case "A-ASSOCIATE-AC":
		b, err = p.AC.AppendAC(nil)
	case "A-ASSOCIATE-RJ":
		n := p.numbers(rest, 3)
		b = pdu.Reject{Result: n[0], Source: n[1], Reason: n[2]}.Append(nil)
	case "A-RELEASE-RQ":
		b = pdu.AppendReleaseRQ(nil)
	case "A-RELEASE-RP":
		b = pdu.AppendReleaseRP(nil)
	case "A-ABORT":
		n := p.numbers(rest, 2)
		b = pdu.Abort{Source: n[0], Reason: n[1]}.Append(nil)
	case "P-DATA-TF":
		b = p.data(rest)
	case "bytes":
		b, err = hex.DecodeString(strings.ReplaceAll(rest, " ", ""))
	default:
		p.t.Fatalf("no such PDU: %s", line)
	}
	if err != nil {
		p.t.Fatalf("%s: %v", line, err)
	}
	return b
}

// numbers reads n small numbers.
func (p *Peer) numbers(text string, n int) []byte {
	p.t.Helper()
	fields := strings.Fields(text)
	if len(fields) != n {
		p.t.Fatalf("%d numbers in %q, not %d", len(fields), text, n)
	}
	out := make([]byte, n)
	for i, f := range fields {
		v, err := strconv.ParseUint(f, 0, 8)
		if err != nil {
			p.t.Fatal(err)
		}
		out[i] = byte(v)
	}
	return out
}

// data makes a P-DATA-TF of values in brackets.
func (p *Peer) data(text string) []byte {
	p.t.Helper()
	var body []byte
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		value, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]")
		fields := strings.Fields(value)
		if !ok || len(fields) < 2 {
			p.t.Fatalf("no presentation data value: %s", text)
		}
		h := pdu.DataHeader{Context: p.numbers(fields[0], 1)[0], Command: fields[1] == "command"}
		fields = fields[2:]
		if len(fields) > 0 && fields[0] == "last" {
			h.Last, fields = true, fields[1:]
		}
		b, err := hex.DecodeString(strings.Join(fields, ""))
		if err != nil {
			p.t.Fatalf("%s: %v", value, err)
		}
		h.Length = uint32(len(b))
		body = append(pdu.AppendDataHeader(body, h), b...)
		text = rest
	}
	return append(pdu.AppendHeader(nil, pdu.Header{Type: pdu.TypeData, Length: uint32(len(body))}), body...)
}

// Describe returns a PDU in one line, as [Peer.Play] expects it:
//
//	A-ASSOCIATE-RQ CALLING > CALLED [1 class syntax,syntax] …
//	A-ASSOCIATE-AC CALLING > CALLED [1 result syntax] …
//	A-ASSOCIATE-RJ 1 1 7
//	P-DATA-TF [1 command last 68] [1 data 100]   the number of bytes last
//	A-ABORT 2 1
func Describe(b []byte) string {
	if len(b) < pdu.HeaderBytes {
		return fmt.Sprintf("%d bytes", len(b))
	}
	h, body := pdu.ParseHeader(b), b[pdu.HeaderBytes:]
	out := []string{h.Type.String()}
	switch h.Type {
	case pdu.TypeAssociateRQ, pdu.TypeAssociateAC:
		parse := pdu.ParseAssociateRQ
		if h.Type == pdu.TypeAssociateAC {
			parse = pdu.ParseAssociateAC
		}
		a, err := parse(body)
		if err != nil {
			return h.Type.String() + " " + err.Error()
		}
		out = append(out, a.Calling, ">", a.Called)
		for _, c := range a.Contexts {
			what := c.Abstract
			if h.Type == pdu.TypeAssociateAC {
				what = strconv.Itoa(int(c.Result))
			}
			out = append(out, fmt.Sprintf("[%d %s %s]", c.ID, what, strings.Join(c.Syntaxes, ",")))
		}
	case pdu.TypeAssociateRJ:
		if r, err := pdu.ParseReject(body); err == nil {
			out = append(out, fmt.Sprintf("%d %d %d", r.Result, r.Source, r.Reason))
		}
	case pdu.TypeAbort:
		if a, err := pdu.ParseAbort(body); err == nil {
			out = append(out, fmt.Sprintf("%d %d", a.Source, a.Reason))
		}
	case pdu.TypeData:
		for len(body) >= pdu.DataHeaderBytes {
			v, err := pdu.ParseDataHeader(body, uint32(len(body)))
			if err != nil {
				return "P-DATA-TF " + err.Error()
			}
			kind := "data"
			if v.Command {
				kind = "command"
			}
			if v.Last {
				kind += " last"
			}
			out = append(out, fmt.Sprintf("[%d %s %d]", v.Context, kind, v.Length))
			body = body[pdu.DataHeaderBytes+int(v.Length):]
		}
	}
	return strings.Join(out, " ")
}
