package authority

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	magic      = "PJ\x01" // of every message; the last byte is the version
	headBytes  = len(magic) + 1 + 2
	maxMessage = 2*maxCertificate + 2 // a renewal with both at their largest

	opEnroll  = 1
	opRenew   = 2
	opGranted = 3
	opRefused = 4

	enrollBytes = 32 + 64 + identity.SealingBytes + identity.ProofBytes + 2 // without its address and request

	// maxAnswer bounds the wait for a commit of the network and its answer.
	maxAnswer = 30 * time.Second
)

// Office answers requests: *Registrar where the node may sign, else what passes
// them to a node that may.
type Office interface {
	Enroll(ctx context.Context, e Enrollment) (certificate []byte, err error)
	Renew(ctx context.Context, n Renewal) (certificate []byte, err error)
}

// Serve answers one request on a connection of the join protocol, and leaves the
// closing to the caller. The asker is a stranger until the office says otherwise:
// one message of at most 8 KiB is read, and a refusal tells its [Refusal] only.
// The error is why there was no certificate, for the log.
func Serve(ctx context.Context, conn net.Conn, office Office) error {
	ctx, cancel := context.WithTimeout(ctx, maxAnswer)
	defer cancel()
	defer watch(ctx, conn)()
	return Answer(ctx, conn, conn, office)
}

// Answer is [Serve] where somebody else bounds the time: it reads one request and
// writes its answer.
func Answer(ctx context.Context, r io.Reader, w io.Writer, office Office) error {
	op, body, err := readMessage(r)
	if err != nil {
		return fmt.Errorf("authority: read a request: %w", err)
	}
	certificate, err := handle(ctx, office, op, body)
	if err == nil {
		err = writeMessage(w, opGranted, certificate)
	} else if told := writeMessage(w, opRefused, []byte{byte(refusalOf(err))}); told != nil {
		err = errors.Join(err, fmt.Errorf("authority: tell the asker: %w", told))
	}
	return err
}

// Remote is the office of another node, to which Carry brings a request and
// returns its answer; see [Answer] for the other end.
type Remote struct {
	Root  *Root
	Carry func(ctx context.Context, request []byte) (answer io.ReadCloser, err error)
}

// Enroll is as [Registrar.Enroll], at the other node.
func (r Remote) Enroll(ctx context.Context, e Enrollment) ([]byte, error) {
	return r.ask(ctx, e.Request, opEnroll, e.append(nil))
}

// Renew is as [Registrar.Renew], at the other node.
func (r Remote) Renew(ctx context.Context, n Renewal) ([]byte, error) {
	return r.ask(ctx, n.Request, opRenew, n.append(nil))
}

func (r Remote) ask(ctx context.Context, der []byte, op byte, body []byte) ([]byte, error) {
	request, err := ParseRequest(der)
	if err != nil {
		return nil, Malformed.Err()
	}
	var message bytes.Buffer
	if err := writeMessage(&message, op, body); err != nil {
		return nil, err
	}
	answer, err := r.Carry(ctx, message.Bytes())
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	return readAnswer(answer, r.Root, request.Name)
}

func handle(ctx context.Context, office Office, op byte, body []byte) ([]byte, error) {
	switch op {
	case opEnroll:
		e, err := parseEnrollment(body)
		if err != nil {
			return nil, err
		}
		return office.Enroll(ctx, e)
	case opRenew:
		n, err := parseRenewal(body)
		if err != nil {
			return nil, err
		}
		return office.Renew(ctx, n)
	}
	return nil, Malformed.Err()
}

// Enroll sends a request to join and returns the certificate (DER), verified. A
// refusal is an error that wraps its [Refusal]; fault.Unavailable if the peer did
// not answer, and then asking again with the same token is right.
func Enroll(ctx context.Context, conn net.Conn, root *Root, e Enrollment) ([]byte, error) {
	request, err := ParseRequest(e.Request)
	if err != nil {
		return nil, err
	}
	return ask(ctx, conn, root, request.Name, opEnroll, e.append(nil))
}

// Renew sends a request for a new certificate and returns it, verified. Errors as
// of [Enroll].
func Renew(ctx context.Context, conn net.Conn, root *Root, n Renewal) ([]byte, error) {
	request, err := ParseRequest(n.Request)
	if err != nil {
		return nil, err
	}
	return ask(ctx, conn, root, request.Name, opRenew, n.append(nil))
}

func ask(ctx context.Context, conn net.Conn, root *Root, name Name, op byte, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, maxAnswer)
	defer cancel()
	defer watch(ctx, conn)()
	if err := writeMessage(conn, op, body); err != nil {
		return nil, fault.New(fault.Unavailable, "authority: send a request: %w", err)
	}
	return readAnswer(conn, root, name)
}

// readAnswer reads the certificate of the node that has asked, and verifies it.
func readAnswer(r io.Reader, root *Root, name Name) ([]byte, error) {
	op, body, err := readMessage(r)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "authority: no answer: %w", err)
	}
	switch {
	case op == opRefused && len(body) == 1:
		return nil, Refusal(body[0]).Err()
	case op != opGranted:
		return nil, fault.New(fault.Protocol, "authority: an answer of kind %d", op)
	}
	got, err := root.Verify(body, time.Now())
	if err != nil {
		return nil, err
	}
	if got != name {
		return nil, fault.New(fault.Protocol, "authority: the certificate that came is another node's")
	}
	return body, nil
}

// watch ends reads and writes of a connection when the context ends, until the
// returned function is called.
func watch(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() {
		//nolint:errcheck // a connection without deadlines is ended by who closes it
		conn.SetDeadline(time.Unix(1, 0))
	})
	return func() { stop() }
}

func (e Enrollment) append(b []byte) []byte {
	b = append(b, e.Ticket[:]...)
	b = append(b, e.Signature[:]...)
	b = append(b, e.Sealing[:]...)
	b = append(b, e.Proof[:]...)
	b = e.Place.append(b)
	return append(b, e.Request...)
}

func parseEnrollment(b []byte) (Enrollment, error) {
	var e Enrollment
	if len(b) < enrollBytes || len(b) > enrollBytes+MaxAddress+maxCertificate {
		return e, Malformed.Err()
	}
	for _, field := range [][]byte{e.Ticket[:], e.Signature[:], e.Sealing[:], e.Proof[:]} {
		b = b[copy(field, b):]
	}
	flags, length := b[0], int(b[1])
	if b = b[2:]; flags > flagWitness || length > len(b) {
		return e, Malformed.Err()
	}
	e.Place = Place{Address: string(b[:length]), Witness: flags == flagWitness}
	e.Request = b[length:]
	return e, nil
}

func (n Renewal) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(n.Certificate)))
	b = append(b, n.Certificate...)
	return append(b, n.Request...)
}

func parseRenewal(b []byte) (Renewal, error) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
		return Renewal{}, Malformed.Err()
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	return Renewal{Certificate: b[2:end], Request: b[end:]}, nil
}

func writeMessage(w io.Writer, op byte, body []byte) error {
	if len(body) > maxMessage {
		return fault.New(fault.Invalid, "authority: a message of %d bytes", len(body))
	}
	b := append(make([]byte, 0, headBytes+len(body)), magic...)
	b = binary.BigEndian.AppendUint16(append(b, op), uint16(len(body)))
	_, err := w.Write(append(b, body...))
	return err
}

// readMessage reads one message of at most maxMessage bytes.
func readMessage(r io.Reader) (op byte, body []byte, err error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint16(head[headBytes-2:]))
	if string(head[:len(magic)]) != magic || size > maxMessage {
		return 0, nil, fault.New(fault.Invalid, "authority: not a message of the join protocol")
	}
	body = make([]byte, size)
	_, err = io.ReadFull(r, body)
	return head[len(magic)], body, err
}
