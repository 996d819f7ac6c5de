package scp

import (
	"errors"
	"testing"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/command"
)

func TestFinalStatusFollowsTheCounts(t *testing.T) {
	for name, tt := range map[string]struct {
		total, completed, failed, warned int
		err                              error
		want                             command.Status
		wantFailed                       int
	}{
		"nothing to send":                  {want: 0x0000},
		"nothing found":                    {total: 0, err: fault.New(fault.NotFound, "none"), want: 0x0000},
		"all sent":                         {total: 2, completed: 2, want: 0x0000},
		"some failed":                      {total: 2, completed: 1, failed: 1, want: 0xB000, wantFailed: 1},
		"all failed":                       {total: 2, failed: 2, want: 0xA702, wantFailed: 2},
		"warnings":                         {total: 2, completed: 1, warned: 1, want: 0xB000},
		"only warnings":                    {total: 1, warned: 1, want: 0xB000},
		"warning and failure":              {total: 2, failed: 1, warned: 1, want: 0xB000, wantFailed: 1},
		"unavailable before anything":      {total: 3, err: fault.New(fault.Unavailable, "x"), want: 0xA702, wantFailed: 3},
		"unavailable after something":      {total: 3, completed: 1, err: fault.New(fault.Unavailable, "x"), want: 0xB000, wantFailed: 2},
		"corrupt":                          {total: 1, err: fault.New(fault.Corrupt, "x"), want: 0xA702, wantFailed: 1},
		"denied":                           {err: fault.New(fault.Denied, "x"), want: 0x0124},
		"unparsable":                       {err: fault.New(fault.Invalid, "x"), want: 0xC001},
		"mismatch":                         {err: fault.New(fault.Mismatch, "x"), want: 0xA900},
		"destination unknown":              {err: dimse.DestinationUnknown(), want: 0xA801},
		"canceled":                         {total: 5, completed: 1, failed: 1, err: errCanceled, want: 0xFE00, wantFailed: 1},
		"unknown error":                    {total: 1, err: errors.New("x"), want: 0x0110, wantFailed: 1},
		"found less than said, some wrong": {total: 5, completed: 1, failed: 1, err: fault.New(fault.NotFound, "x"), want: 0xB000, wantFailed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := &progress{total: tt.total, completed: tt.completed, failed: tt.failed, warned: tt.warned}
			got, comment := p.outcome(dimse.Move, tt.err)
			if got.Status != tt.want || got.Failed != tt.wantFailed {
				t.Errorf("status %v, %d failed; want %v, %d", got.Status, got.Failed, tt.want, tt.wantFailed)
			}
			if got.Status == command.Success && comment != "" {
				t.Errorf("a success has the comment %q", comment)
			}
		})
	}
}

func TestCountsSaturateAt16Bits(t *testing.T) {
	p := &progress{total: 200_000, completed: 70_000, failed: 65_535, warned: 3}
	set := &command.Set{}
	p.fill(set, true)
	if *set.Completed != 65535 || *set.Failed != 65535 || *set.Warning != 3 || *set.Remaining != 64462 {
		t.Errorf("counts %d %d %d %d", *set.Completed, *set.Failed, *set.Warning, *set.Remaining)
	}
	final := &command.Set{}
	p.fill(final, false)
	if final.Remaining != nil {
		t.Error("a final response has no Remaining")
	}
}

func TestMoreSubOperationsThanSaidLeaveNoneRemaining(t *testing.T) {
	p := newProgress()
	p.expect(1)
	p.done("1.1", 0, nil)
	p.done("1.2", 0xB007, nil)
	p.done("1.3", 0xA700, nil)
	p.done("1.4", 0, errors.New("x"))
	set := &command.Set{}
	p.fill(set, true)
	if *set.Completed != 1 || *set.Failed != 2 || *set.Warning != 1 || *set.Remaining != 0 {
		t.Errorf("counts %d %d %d %d", *set.Completed, *set.Failed, *set.Warning, *set.Remaining)
	}
	if len(p.failedUIDs) != 2 || p.failedUIDs[0] != "1.3" || p.failedUIDs[1] != "1.4" {
		t.Errorf("failed UIDs %v", p.failedUIDs)
	}
}
