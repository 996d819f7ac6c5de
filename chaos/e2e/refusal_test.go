package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"pelago/dimse"
	"pelago/dimse/dict"
	"pelago/dimse/dimsetest"
	"pelago/dimse/scu"
)

// statusOf returns the status of a failed C-STORE as four hexadecimal digits.
func statusOf(err error) string {
	var status *dimse.StatusError
	if !errors.As(err, &status) {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%04X", uint16(status.Status))
}

// sendable makes an instance to send of what is none: where the data set names
// no class or instance, the command does.
func (r refusal) sendable(number int) instance {
	in := r.instance
	if in.data == nil {
		in.data = in.file
	}
	if in.class == "" || !dict.IsStorageClass(in.class) {
		in.class = dimsetest.CTImageStorage
	}
	if in.sop == "" {
		in.sop = fmt.Sprint("1.2.826.0.1.3680043.10.9997.", number)
	}
	if in.syntax == "" {
		in.syntax = dict.ImplicitLittleEndian
	}
	return in
}

// empty fails the test unless the node holds nothing at all.
func (n *node) empty() {
	n.t.Helper()
	s := n.status()
	if s.Instances != 0 || s.Studies != 0 || s.Quarantined != 0 {
		n.t.Errorf("the node holds %d instances of %d studies, %d quarantined", s.Instances, s.Studies, s.Quarantined)
	}
	var found []any
	n.call(http.MethodGet, "/dicom-web/instances", nil, &found)
	if len(found) > 0 {
		n.t.Errorf("QIDO-RS finds %d instances", len(found))
	}
	if report := n.verifyClean(); report.Instances != 0 || report.Bytes != 0 {
		n.t.Errorf("verify counts %d instances of %d bytes", report.Instances, report.Bytes)
	}
}

func TestBrokenSamplesAreRefusedOverCStore(t *testing.T) {
	c := loadCorpus(t)
	n := start(t)
	var outgoing []instance
	for i, r := range c.refused {
		outgoing = append(outgoing, r.sendable(i))
	}
	// One association for all: a broken data set costs its sender one status.
	client, err := scu.Dial(t.Context(), n.target("E2E"), scu.Proposal{Contexts: scu.StorePlan(kinds(outgoing))[0]})
	if err != nil {
		t.Fatal(err)
	}
	for i, in := range outgoing {
		if _, err := client.Send(t.Context(), in.outgoing(), scu.Originator{}); statusOf(err) != c.refused[i].status {
			t.Errorf("%s: %v, want %s", in.name, statusOf(err), c.refused[i].status)
		}
	}
	if err := client.Release(t.Context()); err != nil {
		t.Errorf("the association did not survive: %v", err)
	}
	n.healthy()
	n.empty()
	n.kill()
	n.restart()
	n.empty()
}

func TestBrokenSamplesAreRefusedOverSTOW(t *testing.T) {
	c := loadCorpus(t)
	n := start(t)
	for _, r := range c.refused {
		want, err := strconv.ParseUint(r.status, 16, 16)
		if err != nil {
			t.Fatal(err)
		}
		status, answer := n.stowParts([]instance{r.instance})
		reasons := []string{}
		for _, reason := range answer.failed {
			reasons = append(reasons, reason)
		}
		if status != http.StatusConflict || len(answer.stored) > 0 || !slices.Equal(reasons, []string{fmt.Sprint(want)}) {
			t.Errorf("%s: %d, stored %v, failed %v, want 409 and reason %d", r.name, status, answer.stored, answer.failed, want)
		}
		bare := n.do(http.MethodPost, "/dicom-web/studies", bytes.NewReader(r.file), http.Header{"Content-Type": {"application/dicom"}})
		if readAll(t, bare); bare.StatusCode != http.StatusBadRequest && bare.StatusCode != http.StatusConflict {
			t.Errorf("%s alone: %s", r.name, bare.Status)
		}
	}
	n.healthy()
	n.empty()
}

// A part that breaks fails alone.
func TestBrokenSampleAmongGoodOnes(t *testing.T) {
	c := loadCorpus(t)
	n := start(t)
	good := world(dimsetest.World{Seed: 11, Patients: 3})
	broken := c.refused[slices.IndexFunc(c.refused, func(r refusal) bool { return r.name == "odd/MR_truncated.dcm" })]
	status, answer := n.stowParts([]instance{good[0], broken.instance, good[1], good[2]})
	if status != http.StatusAccepted || len(answer.stored) != 3 || len(answer.failed) != 1 {
		t.Errorf("%d, %d stored, %d failed; want 202, 3, 1", status, len(answer.stored), len(answer.failed))
	}
	n.cget(good).same(t, "C-GET", good)
}

// A body that ends anywhere stores what was whole, and nothing by half.
func TestSTOWBodyThatEndsEarly(t *testing.T) {
	n := start(t)
	in := made(dimsetest.CT(12, 0))
	head := "--b\r\nContent-Type: application/dicom\r\n\r\n"
	for _, length := range []int{0, 1, 130, 500, len(in.file) / 2, len(in.file) - 1, len(in.file)} {
		body := head + string(in.file[:length])
		answer, err := n.try(http.MethodPost, "/dicom-web/studies", io.MultiReader(bytes.NewReader([]byte(body))), http.Header{
			"Content-Type": {`multipart/related; type="application/dicom"; boundary=b`},
		})
		if err != nil {
			t.Fatal(err)
		}
		if b := readAll(t, answer); answer.StatusCode/100 != 4 {
			t.Errorf("a body that ends after %d bytes of the file: %s %s", length, answer.Status, b)
		}
	}
	n.healthy()
	n.empty()
}

// healthy fails the test unless the node serves both its faces.
func (n *node) healthy() {
	n.t.Helper()
	if err := scu.Echo(n.t.Context(), n.target("E2E")); err != nil {
		n.t.Errorf("C-ECHO: %v", err)
	}
	n.call(http.MethodGet, "/readyz", nil, nil)
	n.call(http.MethodGet, "/dicom-web/studies", nil, nil)
}
