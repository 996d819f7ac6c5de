package assoc

import (
	"log/slog"
	"time"

	"pelago/dimse/pdu"
)

const (
	// defaultMaxPDU is announced unless configured otherwise: twice what dcmtk
	// ever sends (128 KiB), so that no common sender is held back; data sets are
	// streamed, so that it costs no memory.
	defaultMaxPDU = 256 << 10

	defaultARTIM = 30 * time.Second
	defaultIdle  = 10 * time.Minute
	defaultStall = 60 * time.Second

	// sendCap is the longest P-DATA-TF that is sent, whatever the peer takes: the
	// fastest on loopback (16 KiB 0.9, 128 KiB 1.2, 256 KiB 2.0, 1 MiB 1.1 GB/s,
	// BenchmarkSend), and one such buffer is held per association that sends data sets.
	sendCap = 256 << 10

	// leastPeerMax is the smallest maximum length of a peer that is taken
	// seriously: heads of fragments would outweigh their bytes.
	leastPeerMax = 128

	// readSmall is the receive buffer of an association that has brought no
	// data set yet: 500 idle ones are 4 MB.
	readSmall = 8 << 10

	// readFull is the receive buffer once a peer has filled the small one.
	readFull = 128 << 10

	// abortLinger is how long a connection stays open after A-ABORT was sent, so
	// that the peer reads it rather than a reset. It bounds every abort.
	abortLinger = time.Second
)

// Config holds an end's own settings.
type Config struct {
	MaxPDU   uint32        // longest PDU that we take; 0: 256 KiB is announced
	ARTIM    time.Duration // PS3.8 §9.1.5; 30 s
	Idle     time.Duration // without a PDU while established; 10 min
	Stall    time.Duration // without progress inside a PDU, a message or a write; 60 s
	Log      *slog.Logger  // never patient data
	UserInfo UserInfo
}

// withDefaults fills in what is zero.
func (c Config) withDefaults() Config {
	if c.MaxPDU == 0 {
		c.MaxPDU = defaultMaxPDU
	}
	c.MaxPDU = max(c.MaxPDU, leastPeerMax)
	if c.ARTIM == 0 {
		c.ARTIM = defaultARTIM
	}
	if c.Idle == 0 {
		c.Idle = defaultIdle
	}
	if c.Stall == 0 {
		c.Stall = defaultStall
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// user returns what the end says of itself in an A-ASSOCIATE.
func (c Config) user() pdu.User {
	return pdu.User{
		MaxLength:              c.MaxPDU,
		ImplementationClassUID: c.UserInfo.ImplementationClassUID,
		ImplementationVersion:  c.UserInfo.ImplementationVersion,
	}
}

// UserInfo is what an end says of itself.
type UserInfo struct{ ImplementationClassUID, ImplementationVersion string }
