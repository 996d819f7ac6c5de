package scp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

func TestAStoredDataSetArrivesByteForByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), proposeStore())
		for _, size := range []int{0, 1, 7, 4096, 300_001} {
			data := bytes.Repeat([]byte{0xAB, 1, 2}, size)[:size]
			status, err := c.Store(t.Context(), scu.StoreRequest{
				Class: ctClass, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, Data: bytes.NewReader(data),
				Originator: scu.Originator{AE: "MOVER", MessageID: 9},
			})
			if err != nil || status != 0 {
				t.Fatalf("%d bytes: %v %v", size, status, err)
			}
			all := p.taken()
			got := all[len(all)-1]
			if !bytes.Equal(got.data, data) || got.class != ctClass || got.instance != "1.2.3" ||
				got.syntax != dict.ExplicitLittleEndian || got.originator != "MOVER" {
				t.Errorf("%d bytes: got %d bytes as %s %s %s from %s", size, len(got.data), got.class, got.instance, got.syntax, got.originator)
			}
		}
		release(t, c)
	})
}

func TestAFailedStoreIsAnsweredAndTheAssociationGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails error
		p := &provider{}
		p.store = func(_ context.Context, r *StoreRequest) error {
			if _, err := io.ReadFull(r.Data, make([]byte, 1000)); err != nil {
				return err
			}
			return fails
		}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), proposeStore())
		for _, tt := range []struct {
			err  error
			want command.Status
			kind fault.Kind
		}{
			{fault.New(fault.Full, "no room"), 0xA700, fault.Full},
			{fault.New(fault.Mismatch, "other UID"), 0xA900, fault.Mismatch},
			{fault.New(fault.Invalid, "cut short"), 0xC000, fault.Invalid},
			{fault.New(fault.Denied, "no"), 0x0124, fault.Denied},
			{errors.New("secret"), 0x0110, fault.Other},
			{nil, 0, 0},
			{&dimse.StatusError{Status: 0xB007, Comment: "odd"}, 0xB007, 0},
			{fault.New(fault.Conflict, "quarantined"), 0, 0},
		} {
			fails = tt.err
			status, err := c.Store(t.Context(), scu.StoreRequest{
				Class: ctClass, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, Data: bytes.NewReader(make([]byte, 500_000)),
			})
			if status != tt.want {
				t.Errorf("%v: status %v, want %v", tt.err, status, tt.want)
			}
			var answered *dimse.StatusError
			switch failed := tt.want.IsFailure(); {
			case failed && (!errors.As(err, &answered) || fault.KindOf(err) != tt.kind):
				t.Errorf("%v: error %v of kind %v", tt.err, err, fault.KindOf(err))
			case failed && strings.Contains(answered.Comment, "secret"):
				t.Error("an error without a kind leaked into the comment")
			case !failed && err != nil:
				t.Errorf("%v: error %v", tt.err, err)
			}
		}
		release(t, c)
	})
}

// recorder keeps what a client writes.
type recorder struct {
	net.Conn
	mu      sync.Mutex
	written bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	n, err := r.Conn.Write(b)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.written.Write(b[:n])
	return n, err
}

func TestAPeerThatVanishesAtAnyByteStoresNothingByHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := bytes.Repeat([]byte("DICOM "), 60)
		var mu sync.Mutex
		whole, broken := 0, 0
		p := &provider{}
		p.store = func(_ context.Context, r *StoreRequest) error {
			got, err := io.ReadAll(r.Data)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && bytes.Equal(got, data):
				whole++
			case errors.Is(err, io.ErrUnexpectedEOF):
				broken++
			default:
				t.Errorf("storer saw %d bytes and %v", len(got), err)
			}
			return err
		}
		closed := 0
		session := sessionOf(p)
		session.Closed = func(error) { mu.Lock(); closed++; mu.Unlock() }
		l := serve(t, &Server{Admit: admitAll{session}})

		// One good run, recorded. Small PDUs put borders into the data set.
		rec := &recorder{}
		tgt := target(l)
		tgt.Dialer = func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := l.Dial(ctx)
			rec.Conn = conn
			return rec, err
		}
		c, err := scu.Dial(t.Context(), tgt, proposeStore())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Store(t.Context(), scu.StoreRequest{
			Class: ctClass, Instance: "1.2.3", Syntax: dict.ExplicitLittleEndian, Data: bytes.NewReader(data),
		}); err != nil {
			t.Fatal(err)
		}
		release(t, c)
		script := rec.written.Bytes()
		if whole != 1 || len(script) < len(data) {
			t.Fatalf("recorded %d bytes of %d stores", len(script), whole)
		}

		for n := range len(script) {
			conn, err := l.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var drained sync.WaitGroup
			drained.Go(func() { _, _ = io.Copy(io.Discard, conn) })
			// The request goes first: the association must be there before more comes.
			request := min(n, 6+int(binary.BigEndian.Uint32(script[2:6])))
			for _, part := range [][]byte{script[:request], script[request:n]} {
				_, _ = conn.Write(part) // the server may have closed already
				synctest.Wait()
			}
			conn.Close()
			drained.Wait()
			synctest.Wait()
		}
		if broken == 0 {
			t.Error("no run ended inside the data set")
		}
		if whole < 2 {
			t.Error("no run ended behind the data set")
		}
		if closed == 0 {
			t.Error("sessions were not closed")
		}
	})
}

func TestRequestsOutOfPlaceAreRefusedByStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		p := &provider{find: func(ctx context.Context, _ *FindRequest) (*Matches, error) {
			select {
			case <-hold:
			case <-ctx.Done():
			}
			return &Matches{Datasets: matches()}, nil
		}}
		l := serve(t, &Server{Admit: admitAll{sessionOf(p)}})
		r := dialRaw(t, l, assoc.Request{
			Contexts:   contexts(dimse.Verification, ctClass, studyFind, dimse.StorageCommitment),
			MaxInvoked: 2,
		})
		body := func() io.Reader {
			return bytes.NewReader([]byte{8, 0, 0x52, 0, 6, 0, 0, 0, 'S', 'T', 'U', 'D', 'Y', ' '})
		}
		find := command.Set{Field: command.CFindRQ, MessageID: 100, Class: studyFind, HasData: true}
		if err := r.Send(t.Context(), 5, find.Encode(nil), body()); err != nil {
			t.Fatal(err)
		}
		for name, tt := range map[string]struct {
			context byte
			set     command.Set
			want    command.Status
			answer  command.Field
		}{
			"unknown command":             {1, command.Set{Field: 0x0150, Class: dimse.Verification}, 0x0211, 0x8150},
			"command of no service":       {1, command.Set{Field: 0x0777, Class: dimse.Verification}, 0x0211, 0x8777},
			"message id in use":           {1, command.Set{Field: command.CEchoRQ, MessageID: 100, Class: dimse.Verification}, 0x0210, command.CEchoRSP},
			"class of another context":    {1, command.Set{Field: command.CEchoRQ, Class: ctClass}, 0x0122, command.CEchoRSP},
			"store with another class":    {3, command.Set{Field: command.CStoreRQ, Class: "1.2.3", HasData: true}, 0x0122, command.CStoreRSP},
			"N-ACTION with another class": {7, command.Set{Field: command.NActionRQ, Class: "1.2.3", HasData: true}, 0x0118, command.NActionRSP},
			"find on a storage context":   {3, command.Set{Field: command.CFindRQ, Class: ctClass, HasData: true}, 0x0211, command.CFindRSP},
			"move on a find context":      {5, command.Set{Field: command.CMoveRQ, Class: studyFind, MoveDestination: "X", HasData: true}, 0x0211, command.CMoveRSP},
			"store without data":          {3, command.Set{Field: command.CStoreRQ, Class: ctClass}, 0x0212, command.CStoreRSP},
			"echo with data":              {1, command.Set{Field: command.CEchoRQ, Class: dimse.Verification, HasData: true}, 0x0212, command.CEchoRSP},
			"event report to an SCP":      {7, command.Set{Field: command.NEventReportRQ, Class: dimse.StorageCommitment, EventType: 1, HasData: true}, 0x0211, command.NEventReportRSP},
		} {
			set := tt.set
			if set.MessageID == 0 {
				set.MessageID = 7
			}
			var data io.Reader
			if set.HasData {
				data = body()
			}
			if err := r.Send(t.Context(), tt.context, set.Encode(nil), data); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := r.response()
			if got.Status != tt.want || got.Field != tt.answer || got.RespondedTo != set.MessageID {
				t.Errorf("%s: %v with status %v to %d, want %v %v", name, got.Field, got.Status, got.RespondedTo, tt.answer, tt.want)
			}
			if c := got.ErrorComment; c == "" || c != dimse.Comment(c) {
				t.Errorf("%s: the reason is given as %q", name, c)
			}
		}
		// Responses that nobody waits for, and a C-CANCEL of nothing, are passed over.
		for _, set := range []command.Set{
			{Field: command.CStoreRSP, RespondedTo: 55}, {Field: command.NEventReportRSP, RespondedTo: 1},
			{Field: command.CCancelRQ, RespondedTo: 4},
		} {
			if err := r.Send(t.Context(), 1, set.Encode(nil), nil); err != nil {
				t.Fatal(err)
			}
		}
		close(hold)
		if got := r.response(); got.Field != command.CFindRSP || got.Status != 0 || got.RespondedTo != 100 {
			t.Errorf("the query: %+v", got)
		}
	})
}

func TestAPanicEndsItsAssociationOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{
			echo:  func(context.Context) error { panic("echo") },
			find:  func(context.Context, *FindRequest) (*Matches, error) { panic("find") },
			store: func(context.Context, *StoreRequest) error { panic("store") },
		}
		var mu sync.Mutex
		var ends []error
		session := sessionOf(p)
		session.Closed = func(err error) { mu.Lock(); defer mu.Unlock(); ends = append(ends, err) }
		l := serve(t, &Server{Admit: admitAll{session}})
		other := dial(t, l, proposeStore())

		if err := dial(t, l, scu.ProposeEcho()).Echo(t.Context()); !fault.Is(err, fault.Unavailable) {
			t.Errorf("echo: %v", err)
		}
		storing := dial(t, l, proposeStore())
		_, err := storing.Store(t.Context(), scu.StoreRequest{
			Class: ctClass, Instance: "1", Syntax: dict.ExplicitLittleEndian, Data: strings.NewReader("xx"),
		})
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("store: %v", err)
		}
		r := dialRaw(t, l, assoc.Request{Contexts: contexts(studyFind)})
		find := command.Set{Field: command.CFindRQ, MessageID: 1, Class: studyFind, HasData: true}
		if err := r.Send(t.Context(), 1, find.Encode(nil), bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		var aborted *assoc.Aborted
		if _, err := r.Receive(t.Context()); !errors.As(err, &aborted) {
			t.Errorf("find: %v", err)
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(ends) != 3 {
			t.Errorf("%d sessions ended, want 3: %v", len(ends), ends)
		}
		for _, err := range ends {
			if !errors.Is(err, errPanic) {
				t.Errorf("a session ended with %v", err)
			}
		}
		release(t, other)
	})
}
