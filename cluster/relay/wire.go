package relay

import (
	"io"
	"time"

	"pelago/cluster/fault"
)

// The bytes are in docs/formats/network.md.

const (
	// maxNode is the longest id of a node that is read.
	maxNode = 64
	// connected is the answer of a relay that has connected; others are 1 + a kind.
	connected = 0
	// helloTime is how long a relay waits for the name of the node, and connectTime how
	// long it tries to connect to it.
	helloTime, connectTime = 5 * time.Second, 3 * time.Second
)

// writeHello names the node that is to be connected to.
func writeHello(to io.Writer, node string) error {
	if len(node) == 0 || len(node) > maxNode {
		return fault.New(fault.Invalid, "relay: a node's id of %d bytes", len(node))
	}
	_, err := to.Write(append([]byte{byte(len(node))}, node...))
	return err
}

// readHello reads the name of a node.
func readHello(from io.Reader) (string, error) {
	var b [1 + maxNode]byte
	if _, err := io.ReadFull(from, b[:1]); err != nil {
		return "", err
	}
	n := int(b[0])
	if n == 0 || n > maxNode {
		return "", fault.New(fault.Invalid, "relay: a node's id of %d bytes", n)
	}
	if _, err := io.ReadFull(from, b[1:1+n]); err != nil {
		return "", err
	}
	return string(b[1 : 1+n]), nil
}

// answerOf is how an answer is written.
func answerOf(err error) []byte {
	if err == nil {
		return []byte{connected}
	}
	return []byte{1 + byte(fault.KindOf(err))}
}

// readAnswer reads a relay's answer: nil, or an error of the kind that it gave.
func readAnswer(from io.Reader, relay, node string) error {
	var b [1]byte
	if _, err := io.ReadFull(from, b[:]); err != nil {
		return fault.New(fault.Unavailable, "relay: node %s: %w", relay, err)
	}
	if b[0] == connected {
		return nil
	}
	kind := fault.Kind(b[0] - 1)
	if int(kind) >= len(fault.Kinds()) {
		kind = fault.Unavailable // of a later version
	}
	return fault.New(kind, "relay: node %s does not connect to node %s: %s", relay, node, kind)
}
