package scp

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/scu"
)

func commitment() *dimse.CommitmentRequest {
	return &dimse.CommitmentRequest{
		Transaction: "1.2.3.4.5",
		References:  []dimse.Reference{{Class: ctClass, Instance: "1.2.3.1"}, {Class: ctClass, Instance: "1.2.3.2"}},
	}
}

func TestACommitmentIsAskedForAndReportedOnOneAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reported := make(chan error, 1)
		p := &provider{commit: func(ctx context.Context, r *CommitRequest) error {
			if r.Transaction != "1.2.3.4.5" || len(r.References) != 2 || r.References[1] != (dimse.Reference{Class: ctClass, Instance: "1.2.3.2"}) {
				t.Errorf("asked for %+v", r.CommitmentRequest)
			}
			go func() {
				reported <- r.Report(context.WithoutCancel(ctx), &dimse.CommitmentResult{
					Transaction: r.Transaction, Committed: r.References[:1], RetrieveAE: "PELAGO",
					Failed: []dimse.FailedReference{{Reference: r.References[1], Reason: 0x0112}},
				})
			}()
			return nil
		}}
		l := serve(t, &Server{Admit: admitAll{sessionOf(p)}})
		results := make(chan *dimse.CommitmentResult, 1)
		tgt := target(l)
		tgt.Committed = func(_ context.Context, r *dimse.CommitmentResult) error { results <- r; return nil }
		c, err := scu.Dial(t.Context(), tgt, scu.ProposeCommitment())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.RequestCommitment(t.Context(), commitment()); err != nil {
			t.Fatal(err)
		}
		got := <-results
		if got.Transaction != "1.2.3.4.5" || got.RetrieveAE != "PELAGO" || got.EventType() != 2 ||
			len(got.Committed) != 1 || got.Committed[0].Instance != "1.2.3.1" ||
			len(got.Failed) != 1 || got.Failed[0].Instance != "1.2.3.2" || got.Failed[0].Reason != 0x0112 {
			t.Errorf("result %+v", got)
		}
		if err := <-reported; err != nil {
			t.Errorf("Report: %v", err)
		}
		release(t, c)
	})
}

func TestAReportAfterTheAssociationIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan *CommitRequest, 1)
		p := &provider{commit: func(_ context.Context, r *CommitRequest) error { asked <- r; return nil }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeCommitment())
		if err := c.RequestCommitment(t.Context(), commitment()); err != nil {
			t.Fatal(err)
		}
		release(t, c)
		synctest.Wait()
		r := <-asked
		if err := r.Report(t.Context(), &dimse.CommitmentResult{Transaction: r.Transaction}); !fault.Is(err, fault.Unavailable) {
			t.Errorf("Report: %v", err)
		}
	})
}

func TestAResultIsReportedOnANewAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results := make(chan *dimse.CommitmentResult, 1)
		var refuse error
		session := &Session{Committed: func(_ context.Context, r *dimse.CommitmentResult) error {
			results <- r
			return refuse
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{session}}), scu.ProposeCommitmentResult())
		result := &dimse.CommitmentResult{Transaction: "1.2.3", Committed: commitment().References}
		if err := c.SendCommitmentResult(t.Context(), result); err != nil {
			t.Errorf("SendCommitmentResult: %v", err)
		}
		if got := <-results; got.EventType() != 1 || len(got.Committed) != 2 {
			t.Errorf("result %+v", got)
		}
		refuse = fault.New(fault.NotFound, "no such transaction")
		var status *dimse.StatusError
		if err := c.SendCommitmentResult(t.Context(), result); !errors.As(err, &status) || status.Status != 0x0112 {
			t.Errorf("refused: %v", err)
		}
		<-results
		if err := c.RequestCommitment(t.Context(), commitment()); !fault.Is(err, fault.Unsupported) {
			t.Errorf("asking in the SCP role: %v", err)
		}
		release(t, c)
	})
}

func TestBrokenCommitmentRequestsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{commit: func(context.Context, *CommitRequest) error { return fault.New(fault.Unavailable, "not now") }}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeCommitment())
		for _, tt := range []struct {
			request dimse.CommitmentRequest
			want    uint16
		}{
			{dimse.CommitmentRequest{Transaction: "1.2"}, 0x0120},
			{dimse.CommitmentRequest{References: commitment().References}, 0x0120},
			{dimse.CommitmentRequest{Transaction: "1.2", References: []dimse.Reference{{Class: "", Instance: "1"}}}, 0x0120},
			{*commitment(), 0x0213},
		} {
			var status *dimse.StatusError
			if err := c.RequestCommitment(t.Context(), &tt.request); !errors.As(err, &status) || uint16(status.Status) != tt.want {
				t.Errorf("%+v: %v, want %04X", tt.request, err, tt.want)
			}
		}
		release(t, c)
	})
}
