package scp

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

func TestSilentConnectionsAndIdleAssociationsKeepNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := serve(t, &Server{Admit: admitAll{sessionOf(&provider{})}})
		// 500 that never ask for an association, twice over: the oldest must go.
		var silent []net.Conn
		for range 1000 {
			c, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, c)
		}
		// And all the idle associations that those who do not store may have.
		for range defaultLimit - defaultLimit/5 {
			dial(t, l, scu.ProposeEcho())
		}
		start := time.Now()
		storing := dial(t, l, proposeStore())
		if _, err := storing.Store(t.Context(), storeRequest("1.2.3", "abcd")); err != nil {
			t.Errorf("store: %v", err)
		}
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the store waited for %v", waited)
		}
		release(t, storing)

		var reject *assoc.Reject
		if _, err := scu.Dial(t.Context(), target(l), scu.ProposeEcho()); !errors.As(err, &reject) ||
			*reject != (assoc.Reject{Result: 2, Source: 3, Reason: 2}) || !fault.Is(err, fault.Unavailable) {
			t.Errorf("one that stores nothing, beyond the limit: %v", err)
		}
		for _, c := range silent {
			c.Close()
		}
	})
}

func TestTheLimitHoldsForStoringToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &Server{Admit: admitAll{sessionOf(&provider{})}, Limit: 3, Reserve: 1}
		l := serve(t, server)
		var open []*scu.Client
		for range 3 {
			open = append(open, dial(t, l, proposeStore()))
		}
		if _, err := scu.Dial(t.Context(), target(l), proposeStore()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("the fourth: %v", err)
		}
		release(t, open[0])
		synctest.Wait()
		if _, err := scu.Dial(t.Context(), target(l), scu.ProposeEcho()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("an echo in the reserve: %v", err)
		}
		release(t, dial(t, l, proposeStore()))
		if n := server.Associations(); n < 2 || n > 3 {
			t.Errorf("%d associations", n)
		}
	})
}

// admitFunc decides by a function.
type admitFunc func(context.Context, *assoc.Request) (*Session, error)

func (f admitFunc) Admit(ctx context.Context, r *assoc.Request) (*Session, error) { return f(ctx, r) }

func TestTheAdmittersErrorIsTheRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refusal error
		l := serve(t, &Server{Limit: 1, Reserve: 1, Admit: admitFunc(func(_ context.Context, r *assoc.Request) (*Session, error) {
			if r.Called != "PELAGO" || r.Calling != "TESTER" || r.Remote == nil {
				t.Errorf("asked about %q %q from %v", r.Called, r.Calling, r.Remote)
			}
			return nil, refusal
		})})
		for _, tt := range []struct {
			err  error
			want assoc.Reject
		}{
			{fault.New(fault.Denied, "unknown AE"), assoc.Reject{Result: 1, Source: 1, Reason: 3}},
			{fault.New(fault.Denied, "%w", &assoc.Reject{Result: 1, Source: 1, Reason: 7}), assoc.Reject{Result: 1, Source: 1, Reason: 7}},
			{fault.New(fault.Unavailable, "starting"), assoc.Reject{Result: 2, Source: 3, Reason: 1}},
			{errors.New("?"), assoc.Reject{Result: 1, Source: 1, Reason: 1}},
		} {
			refusal = tt.err
			_, err := scu.Dial(t.Context(), target(l), proposeStore())
			var got *assoc.Reject
			if !errors.As(err, &got) || *got != tt.want {
				t.Errorf("%v: %v", tt.err, err)
			}
			synctest.Wait() // its place is free again
		}
	})
}

// run serves in the background and returns what Serve returns.
func run(t *testing.T, server *Server) (*dimsetest.Listener, <-chan error) {
	l := dimsetest.Listen()
	done := make(chan error, 1)
	go func() { done <- server.Serve(t.Context(), l) }()
	synctest.Wait()
	return l, done
}

func TestShutdownLetsARunningStoreFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		finish := make(chan struct{})
		p := &provider{store: func(_ context.Context, r *StoreRequest) error {
			<-finish
			return r.Data.Discard()
		}}
		server := &Server{Admit: admitAll{sessionOf(p)}}
		l, served := run(t, server)
		idle := dial(t, l, scu.ProposeEcho())
		silent, err := l.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		storing := dial(t, l, proposeStore())
		var stored error
		var work sync.WaitGroup
		work.Go(func() { _, stored = storing.Store(t.Context(), storeRequest("1.2.3", "abcd")) })
		synctest.Wait()

		down := make(chan error, 1)
		go func() { down <- server.Shutdown(t.Context()) }()
		<-idle.Done() // within seconds: it has nothing to do
		if _, err := silent.Read(make([]byte, 1)); err == nil {
			t.Error("a connection without an association stayed open")
		}
		time.Sleep(20 * time.Second)
		select {
		case err := <-down:
			t.Fatalf("Shutdown returned %v while an instance was being stored", err)
		default:
		}
		if _, err := scu.Dial(t.Context(), target(l), scu.ProposeEcho()); err == nil {
			t.Error("a new association during the shutdown")
		}
		close(finish)
		work.Wait()
		if stored != nil {
			t.Errorf("the running store: %v", stored)
		}
		if err := <-down; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

func TestShutdownAbortsWhenItsTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := make(chan struct{})
		p := &provider{store: func(_ context.Context, r *StoreRequest) error {
			close(started)
			return r.Data.Discard()
		}}
		server := &Server{Admit: admitAll{sessionOf(p)}}
		l, served := run(t, server)
		c := dial(t, l, proposeStore())
		stop := make(chan struct{})
		var work sync.WaitGroup
		var stored error
		work.Go(func() { // a data set that does not end
			_, stored = c.Store(t.Context(), scu.StoreRequest{
				Class: ctClass, Instance: "1", Syntax: storeRequest("", "").Syntax, Data: endless{stop},
			})
		})
		<-started
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		close(stop)
		work.Wait()
		if stored == nil {
			t.Error("the endless store succeeded")
		}
	})
}

// endless gives some zeros a second until it is stopped.
type endless struct{ stop chan struct{} }

func (e endless) Read(p []byte) (int, error) {
	select {
	case <-e.stop:
		return 0, errors.New("stopped")
	case <-time.After(time.Second):
		clear(p)
		return len(p), nil
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &Server{Admit: admitAll{sessionOf(&provider{})}}
		l := dimsetest.Listen()
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- server.Serve(ctx, l) }()
		c := dial(t, l, scu.ProposeEcho())
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
		<-c.Done()
		if err := c.Echo(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("Echo after the end: %v", err)
		}
	})
}

func TestAnAssociationIdlesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		s := sessionOf(&provider{})
		s.Idle = 3 * time.Minute
		s.Closed = func(err error) { ended <- err }
		l := serve(t, &Server{Admit: admitAll{s}})
		c := dial(t, l, scu.ProposeEcho())
		time.Sleep(2 * time.Minute)
		if err := c.Echo(t.Context()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-c.Done()
		if waited := time.Since(start); waited < 3*time.Minute || waited > 3*time.Minute+5*time.Second {
			t.Errorf("idle for %v, want 3 min", waited)
		}
		if err := <-ended; !fault.Is(err, fault.Unavailable) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestEchoIsAnsweredByItsProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeEcho())
		if err := c.Echo(t.Context()); err != nil {
			t.Error(err)
		}
		p.echo = func(context.Context) error { return fault.New(fault.Denied, "no right to echo") }
		var status *dimse.StatusError
		if err := c.Echo(t.Context()); !errors.As(err, &status) || status.Status != 0x0124 || status.Comment != "no right to echo" {
			t.Errorf("denied: %v", err)
		}
		release(t, c)
	})
}

func TestAPanickingAdmitterFreesItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := true
		l := serve(t, &Server{Limit: 1, Reserve: 1, Admit: admitFunc(func(context.Context, *assoc.Request) (*Session, error) {
			if panics {
				panic("admit")
			}
			return sessionOf(&provider{}), nil
		})})
		if _, err := scu.Dial(t.Context(), target(l), proposeStore()); err == nil {
			t.Error("an association without a session")
		}
		synctest.Wait()
		panics = false
		release(t, dial(t, l, proposeStore()))
	})
}

// nobody is admitted.
type nobody struct{}

func (nobody) Admit(context.Context, *assoc.Request) (*Session, error) {
	return nil, fault.New(fault.Denied, "a stranger")
}

func TestTheLogNamesWhoWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer // read once the connection has ended
		server := &Server{Admit: nobody{}, Config: assoc.Config{Log: slog.New(slog.NewTextHandler(&lines, nil))}}
		to := target(serve(t, server))
		if _, err := scu.Dial(t.Context(), to, scu.ProposeEcho()); err == nil {
			t.Fatal("a stranger was let in")
		}
		synctest.Wait()
		for _, want := range []string{"association refused", "calling_ae=" + to.Calling, "called_ae=" + to.Called} {
			if !strings.Contains(lines.String(), want) {
				t.Errorf("%q is missing in %q", want, lines.String())
			}
		}
	})
}
