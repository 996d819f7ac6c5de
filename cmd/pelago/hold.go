package main

import (
	"net/http"
	"time"

	"pelago/node/admin"
)

// holdCommand keeps what was deleted, or will be, from being purged.
type holdCommand struct {
	List    holdList    `cmd:"" default:"withargs" help:"List the holds."`
	Study   holdStudy   `cmd:"" help:"Keep everything of a study."`
	Patient holdPatient `cmd:"" help:"Keep everything of a patient, studies that come later too."`
	Lift    holdLift    `cmd:"" help:"Lift a hold."`
}

type holdList struct{ target }

func (l *holdList) Run(e *env) error {
	c, err := l.node(e)
	if err != nil {
		return err
	}
	all := []admin.Hold{}
	if err := c.get(e.ctx, "/api/holds", &all); err != nil {
		return err
	}
	if l.JSON {
		return printJSON(e.stdout, all)
	}
	var rows [][]string
	for _, h := range all {
		rows = append(rows, []string{h.Study, h.Patient, h.By, h.At.Format(time.RFC3339), h.Reason})
	}
	return table(e.stdout, []string{"STUDY", "PATIENT", "BY", "AT", "REASON"}, rows)
}

type holdStudy struct {
	target
	Study  string `arg:"" help:"Study Instance UID."`
	Reason string `help:"Why it is kept, for those who read the list."`
}

func (h *holdStudy) Run(e *env) error {
	return h.hold(e, http.MethodPut, admin.Hold{Study: h.Study, Reason: h.Reason})
}

type holdPatient struct {
	target
	Patient string `arg:"" help:"The patient's id and its issuer: ID^^^ISSUER."`
	Reason  string `help:"Why it is kept, for those who read the list."`
}

func (h *holdPatient) Run(e *env) error {
	return h.hold(e, http.MethodPut, admin.Hold{Patient: h.Patient, Reason: h.Reason})
}

type holdLift struct {
	target
	Study   string `help:"The study of the hold." xor:"of" required:""`
	Patient string `help:"The patient of the hold: ID^^^ISSUER." xor:"of" required:""`
}

func (h *holdLift) Run(e *env) error {
	return h.hold(e, http.MethodDelete, admin.Hold{Study: h.Study, Patient: h.Patient})
}

// hold sets or lifts a hold.
func (t *target) hold(e *env, method string, h admin.Hold) error {
	c, err := t.node(e)
	if err != nil {
		return err
	}
	return c.call(e.ctx, method, "/api/holds", h, nil)
}
