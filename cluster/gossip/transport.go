package gossip

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"pelago/cluster/fault"
)

const (
	kindPackets = 1 // first byte of a connection: frames of packets follow
	kindStream  = 2 // one exchange of memberlist follows

	// maxPacket bounds a packet. memberlist is told to gather no more than
	// packetSize into one; a single message may be longer than that by its name and
	// metadata.
	maxPacket  = 16 << 10
	packetSize = 4 << 10

	outQueue    = 64  // packets to one peer; some ten seconds of gossip
	inQueue     = 256 // packets from all peers that memberlist has not read: 4 MiB at most
	streamQueue = 16  // exchanges that it has not begun

	firstByte    = 10 * time.Second // to say what a connection is for
	dialTime     = 10 * time.Second
	writeTime    = 10 * time.Second
	idleTime     = 2 * time.Minute // without a packet, a connection is given up
	redialPause  = time.Second     // between attempts to reach one peer
	redialPauses = 30 * time.Second
)

// Dial opens a connection to the gossip service of a node at an address: port.Dial
// with its service, or that of a test.
type Dial func(ctx context.Context, node, address string) (net.Conn, error)

// Transport carries memberlist's messages: a [memberlist.NodeAwareTransport]
// without packets of its own. Messages to a node without a name are refused, as
// nobody could tell who gets them.
type Transport struct {
	dial      Dial
	listener  net.Listener
	advertise netip.AddrPort

	packets chan *memberlist.Packet
	streams chan net.Conn
	ctx     context.Context // of all connections: memberlist's calls bring none
	cancel  context.CancelFunc
	work    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	out    map[memberlist.Address]chan []byte
}

var _ memberlist.NodeAwareTransport = (*Transport)(nil)

// NewTransport begins to accept at the listener, and ends it with
// [Transport.Shutdown]. advertise is where other nodes reach this one.
func NewTransport(l net.Listener, dial Dial, advertise netip.AddrPort) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Transport{
		dial: dial, listener: l, advertise: advertise,
		packets: make(chan *memberlist.Packet, inQueue), streams: make(chan net.Conn, streamQueue),
		ctx: ctx, cancel: cancel, out: map[memberlist.Address]chan []byte{},
	}
	t.work.Go(t.accept)
	return t
}

// FinalAdvertiseAddr returns the address given to [NewTransport].
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// PacketCh is where memberlist reads packets.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is where memberlist takes exchanges.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown closes everything and returns when all goroutines have ended.
func (t *Transport) Shutdown() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.listener.Close()
	t.work.Wait()
	for {
		select {
		case c := <-t.streams:
			c.Close()
		default:
			return nil
		}
	}
}

// WriteTo is refused: it names no node.
func (t *Transport) WriteTo([]byte, string) (time.Time, error) { return time.Time{}, errNameless() }

// DialTimeout is refused: it names no node.
func (t *Transport) DialTimeout(string, time.Duration) (net.Conn, error) { return nil, errNameless() }

func errNameless() error {
	return fault.New(fault.Unsupported, "gossip: a message to an address without a node")
}

// DialAddressTimeout opens a connection for one exchange.
func (t *Transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	if to.Name == "" {
		return nil, errNameless()
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return t.open(ctx, to, kindStream)
}

func (t *Transport) open(ctx context.Context, to memberlist.Address, kind byte) (net.Conn, error) {
	conn, err := t.dial(ctx, to.Name, to.Addr)
	if err != nil {
		return nil, err
	}
	err = conn.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = conn.Write([]byte{kind})
	}
	if err != nil {
		conn.Close()
		return nil, fault.New(fault.Unavailable, "gossip: begin a connection: %w", err)
	}
	return conn, nil
}

// WriteToAddress queues a packet; it is dropped without a word if the queue to its
// node is full.
func (t *Transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	switch {
	case to.Name == "":
		return time.Time{}, errNameless()
	case len(b) > maxPacket:
		return time.Time{}, fault.New(fault.Invalid, "gossip: a packet of %d bytes", len(b))
	}
	frame := append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return time.Time{}, fault.New(fault.Unavailable, "gossip: closed")
	}
	queue := t.out[to]
	if queue == nil {
		queue = make(chan []byte, outQueue)
		t.out[to] = queue
		t.work.Go(func() { t.send(to, queue) })
	}
	select {
	case queue <- frame:
	default:
	}
	return time.Now(), nil
}

// accept takes connections in until the listener ends.
func (t *Transport) accept() {
	for {
		conn, err := t.listener.Accept()
		if err != nil {
			return // closed, by us or with the port
		}
		t.work.Go(func() { t.receive(conn) })
	}
}

// receive reads what a connection is for, and its packets.
func (t *Transport) receive(conn net.Conn) {
	stop := context.AfterFunc(t.ctx, func() { conn.Close() })
	var kind [1]byte
	if conn.SetReadDeadline(time.Now().Add(firstByte)) == nil {
		if _, err := io.ReadFull(conn, kind[:]); err == nil && kind[0] == kindStream {
			if stop() && conn.SetReadDeadline(time.Time{}) == nil && t.handOver(conn) {
				return
			}
		}
	}
	if kind[0] == kindPackets {
		t.read(conn)
	}
	stop()
	conn.Close()
}

// handOver gives a connection to memberlist, if it has room.
func (t *Transport) handOver(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock() // Shutdown empties the queue once closed is set
	if t.closed {
		return false
	}
	select {
	case t.streams <- conn:
		return true
	default:
		return false
	}
}

// read hands packets to memberlist until the connection ends or is silent for
// twice as long as a sender would keep it. Those that find no room are dropped.
func (t *Transport) read(conn net.Conn) {
	for {
		if conn.SetReadDeadline(time.Now().Add(2*idleTime)) != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(size[:])
		if n == 0 || n > maxPacket {
			return
		}
		b := make([]byte, n) // memberlist keeps it
		if _, err := io.ReadFull(conn, b); err != nil {
			return
		}
		select {
		case t.packets <- &memberlist.Packet{Buf: b, From: conn.RemoteAddr(), Timestamp: time.Now()}:
		default:
		}
	}
}
