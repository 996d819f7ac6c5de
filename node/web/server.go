package web

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"time"
)

// ServerOptions configures [NewServer]. The zero value serves plain HTTP/1.1.
type ServerOptions struct {
	TLS *tls.Config  // nil: no TLS; HTTP/2 comes with it
	Log *slog.Logger // nil: the server's own errors are dropped
}

// Limits of every connection. There is no limit on a whole request or answer:
// a study of 20 GB over a slow line is no fault. Stalls within a body are the
// handler's to notice (Limits.Stall).
const (
	headerTimeout  = 20 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
)

// NewServer returns a server with limits fit for the faces of a node. The caller
// gives it a listener and shuts it down.
func NewServer(handler http.Handler, options ServerOptions) *http.Server {
	log := options.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &http.Server{
		Handler:           handler,
		TLSConfig:         options.TLS,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelInfo),
		// The default windows give 10 MB/s at 100 ms; viewers read many frames on one
		// connection.
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          256,
			MaxReceiveBufferPerConnection: 16 << 20,
			MaxReceiveBufferPerStream:     4 << 20,
			WriteByteTimeout:              time.Minute,
		},
	}
}
