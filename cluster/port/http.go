package port

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Windows of HTTP/2: with the defaults a link of 100 ms carries 10 MB/s, with
// these 270 (DESIGN §5). A connection's receiver may have to hold this much for
// readers that are slow. net/http documents 4 MiB as the limit and enforces
// 2 GiB; a test reads the windows off the wire.
const (
	connWindow   = 64 << 20
	streamWindow = 32 << 20
	// frameSize lets bulk flow in few frames, and is short enough for others on the
	// connection not to wait for: 1 ms at 1 Gb/s.
	frameSize = 128 << 10

	maxStreams     = 256
	maxHeaderBytes = 16 << 10
	headerTimeout  = 10 * time.Second
	idleTimeout    = 5 * time.Minute
	pingAfter      = 15 * time.Second
	pingTimeout    = 10 * time.Second
	stallTimeout   = 30 * time.Second
)

func http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReadFrameSize: frameSize,
		MaxReceiveBufferPerConnection: connWindow, MaxReceiveBufferPerStream: streamWindow,
		SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: stallTimeout,
	}
}

func onlyHTTP2() *http.Protocols {
	var p http.Protocols
	p.SetHTTP2(true)
	return &p
}

// NewServer returns the server of peer calls, to be served at the listener of
// [Peer]. The handler knows its caller by [PeerOf] of the request's TLS state, and
// bounds bodies and times itself, as calls differ.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, Protocols: onlyHTTP2(), HTTP2: http2Config(),
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// Transport returns a round tripper for peer calls to https://NODE/PATH, NODE
// being a node's id: locate knows its address. One connection a node is kept and
// shared by its calls; bulk and short calls do not wait for each other if they
// have a transport each. The context of a call bounds its dial too.
func (p *Port) Transport(locate func(ctx context.Context, node string) (address string, err error)) *http.Transport {
	return TransportOver(func(ctx context.Context, node string) (net.Conn, error) {
		address, err := locate(ctx, node)
		if err != nil {
			return nil, err
		}
		return p.Dial(ctx, node, address, Peer)
	})
}

// TransportOver is [Port.Transport] over connections that dial opens: to the service
// [Peer] of a node, whose other side is authenticated.
func TransportOver(dial func(ctx context.Context, node string) (net.Conn, error)) *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, _, host string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(host)
			if err != nil {
				return nil, err
			}
			return dial(ctx, node)
		},
		Protocols: onlyHTTP2(), HTTP2: http2Config(),
		DisableCompression: true, IdleConnTimeout: idleTimeout, MaxResponseHeaderBytes: maxHeaderBytes,
	}
}
