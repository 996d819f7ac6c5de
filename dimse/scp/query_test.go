package scp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/assoc"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/dimse/scu"
)

const (
	tagPatientName dict.Tag = 0x00100010
	tagLevel       dict.Tag = 0x00080052
	tagStudyUID    dict.Tag = 0x0020000D
)

// identifier is a C-FIND, C-MOVE or C-GET identifier.
func identifier() *dicom.Dataset {
	d := dicom.NewDataset()
	d.Set(tagPatientName, dict.PN, "MÜLLER*")
	d.Set(tagStudyUID, dict.UI)
	return d
}

// answer is a match.
func answer(n int) *dicom.Dataset {
	d := dicom.NewDataset()
	d.Set(tagPatientName, dict.PN, fmt.Sprintf("Müller^%d", n))
	return d
}

// collect ranges over a find.
func collect(found iter.Seq2[*dicom.Dataset, error]) (names []string, err error) {
	for d, e := range found {
		if e != nil {
			return names, e
		}
		names = append(names, d.String(tagPatientName))
	}
	return names, nil
}

func TestFindStreamsMatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{}
		var asked *FindRequest
		p.find = func(_ context.Context, r *FindRequest) (*Matches, error) {
			asked = r
			return &Matches{Datasets: matches(answer(1), answer(2), answer(3))}, nil
		}
		session := sessionOf(p)
		session.Options = dimse.QueryOptions{Relational: true, Fuzzy: true}
		l := serve(t, &Server{Admit: admitAll{session}})
		c := dial(t, l, scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{Fuzzy: true, Timezone: true}))
		query := scu.Query{Root: dimse.StudyRoot, Level: "STUDY", Identifier: identifier(), Priority: command.PriorityHigh}
		names, err := collect(c.Find(t.Context(), query))
		if err != nil || len(names) != 3 || names[2] != "Müller^3" {
			t.Errorf("found %q, %v", names, err)
		}
		if asked.Root != dimse.StudyRoot || asked.Identifier.String(tagLevel) != "STUDY" ||
			asked.Identifier.String(tagPatientName) != "MÜLLER*" || asked.Priority != command.PriorityHigh {
			t.Errorf("asked %+v", asked)
		}
		if asked.Options != (dimse.QueryOptions{Fuzzy: true}) {
			t.Errorf("options %+v, want what both sides want", asked.Options)
		}
		if query.Identifier.Has(tagLevel) {
			t.Error("the caller's identifier was changed")
		}
		release(t, c)
	})
}

func TestTheEndOfAFindFollowsTheTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails error
		late := false
		p := &provider{find: func(context.Context, *FindRequest) (*Matches, error) {
			if !late {
				return nil, fails
			}
			return &Matches{Datasets: func(yield func(*dicom.Dataset, error) bool) {
				if yield(answer(1), nil) {
					yield(nil, fails)
				}
			}}, nil
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
		for _, tt := range []struct {
			err  error
			want command.Status
		}{
			{fault.New(fault.NotFound, "none"), 0},
			{fault.New(fault.Mismatch, "no level"), 0xA900},
			{fault.New(fault.Unavailable, "a site is silent"), 0xC002},
			{fault.New(fault.Denied, "no right"), 0x0124},
			{fault.New(fault.Full, "x"), 0xA700},
		} {
			for _, late = range []bool{false, true} {
				fails = tt.err
				names, err := collect(c.Find(t.Context(), scu.Query{Root: dimse.StudyRoot, Identifier: identifier()}))
				var status *dimse.StatusError
				if tt.want == 0 && err != nil || tt.want != 0 && (!errors.As(err, &status) || status.Status != tt.want) {
					t.Errorf("%v (late %v): %v, want %v", tt.err, late, err, tt.want)
				}
				if late != (len(names) == 1) {
					t.Errorf("%v (late %v): %d matches", tt.err, late, len(names))
				}
			}
		}
		release(t, c)
	})
}

func TestPartialAnswersArePendingFF01(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{find: func(context.Context, *FindRequest) (*Matches, error) {
			return &Matches{Datasets: matches(answer(1)), Partial: func() bool { return true }}, nil
		}}
		r := dialRaw(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), assoc.Request{Contexts: contexts(studyFind)})
		set := command.Set{Field: command.CFindRQ, MessageID: 3, Class: studyFind, HasData: true}
		if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		if got := r.response(); got.Status != 0xFF01 || !got.HasData {
			t.Errorf("first response %+v", got)
		}
		if got := r.response(); got.Status != 0 || got.HasData {
			t.Errorf("final response %+v", got)
		}
	})
}

// endlessMatches yields until its context ends.
func endlessMatches(ctx context.Context) iter.Seq2[*dicom.Dataset, error] {
	return func(yield func(*dicom.Dataset, error) bool) {
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			case <-time.After(time.Millisecond):
			}
			if !yield(answer(n), nil) {
				return
			}
		}
	}
}

func TestLeavingAFindCancelsItAndKeepsTheAssociation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{find: func(ctx context.Context, _ *FindRequest) (*Matches, error) {
			return &Matches{Datasets: endlessMatches(ctx)}, nil
		}}
		c := dial(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), scu.ProposeQuery(dimse.StudyRoot, dimse.QueryOptions{}))
		query := scu.Query{Root: dimse.StudyRoot, Identifier: identifier()}
		for range 3 { // the association serves the next one
			n := 0
			for _, err := range c.Find(t.Context(), query) {
				if err != nil {
					t.Fatal(err)
				}
				if n++; n == 10 {
					break
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := collect(c.Find(ctx, query)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("after its time: %v", err)
			}
			cancel()
		}
		release(t, c)
	})
}

func TestACancelMayComeAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{find: func(context.Context, *FindRequest) (*Matches, error) {
			return &Matches{Datasets: func(yield func(*dicom.Dataset, error) bool) {
				for n := range 20 {
					time.Sleep(time.Millisecond)
					if !yield(answer(n), nil) {
						return
					}
				}
			}}, nil
		}}
		r := dialRaw(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), assoc.Request{Contexts: contexts(studyFind)})
		canceled, finished := 0, 0
		for after := range 25 { // before, between, and after the matches
			set := command.Set{Field: command.CFindRQ, MessageID: uint16(after + 1), Class: studyFind, HasData: true}
			if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(nil)); err != nil {
				t.Fatal(err)
			}
			var work sync.WaitGroup
			work.Go(func() {
				time.Sleep(time.Duration(after) * time.Millisecond)
				stop := command.Set{Field: command.CCancelRQ, RespondedTo: set.MessageID}
				if err := r.Send(t.Context(), 1, stop.Encode(nil), nil); err != nil {
					t.Error(err)
				}
			})
			for {
				got := r.response()
				if got.RespondedTo != set.MessageID {
					t.Fatalf("response to %d, want %d", got.RespondedTo, set.MessageID)
				}
				if got.Status == command.Cancel {
					canceled++
					break
				}
				if got.Status == command.Success {
					finished++
					break
				}
			}
			work.Wait()
		}
		if canceled < 18 || finished < 3 {
			t.Errorf("%d canceled, %d finished", canceled, finished)
		}
	})
}

func TestAnIdentifierThatCannotBeReadIsC001(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := dialRaw(t, serve(t, &Server{Admit: admitAll{sessionOf(&provider{})}}), assoc.Request{Contexts: contexts(studyFind)})
		for _, tt := range []struct {
			data []byte
			want command.Status
		}{
			{[]byte{8, 0, 0x52, 0, 0xFF, 0xFF, 0, 0, 'S'}, 0xC001},
			{make([]byte, scu.MaxIdentifier+1), 0xA700},
			{nil, 0},
		} {
			set := command.Set{Field: command.CFindRQ, MessageID: 1, Class: studyFind, HasData: true}
			if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(tt.data)); err != nil {
				t.Fatal(err)
			}
			if got := r.response(); got.Status != tt.want {
				t.Errorf("%d bytes: %v, want %v", len(tt.data), got.Status, tt.want)
			}
		}
	})
}

func TestMoreOperationsThanTheWindowAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{find: func(ctx context.Context, _ *FindRequest) (*Matches, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		r := dialRaw(t, serve(t, &Server{Admit: admitAll{sessionOf(p)}}), assoc.Request{Contexts: contexts(studyFind), MaxInvoked: 3})
		for id := range uint16(4) {
			set := command.Set{Field: command.CFindRQ, MessageID: id, Class: studyFind, HasData: true}
			if err := r.Send(t.Context(), 1, set.Encode(nil), bytes.NewReader(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.response(); got.RespondedTo != 3 || got.Status != 0x0213 {
			t.Errorf("the fourth: %+v", got)
		}
		for id := range uint16(3) {
			set := command.Set{Field: command.CCancelRQ, RespondedTo: id}
			if err := r.Send(t.Context(), 1, set.Encode(nil), nil); err != nil {
				t.Fatal(err)
			}
			if got := r.response(); got.RespondedTo != id || got.Status != 0xFE00 {
				t.Errorf("operation %d: %+v", id, got)
			}
		}
	})
}
