package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
)

// exportCommand writes studies out as Part 10 files, byte for byte as stored,
// one folder a study and series. A file that is there already is left alone, so
// an export can be interrupted and run again.
type exportCommand struct {
	target
	To       string   `help:"Folder to write to." required:"" type:"path"`
	Parallel int      `help:"Instances on their way at once." default:"4"`
	Studies  []string `arg:"" help:"Study Instance UIDs."`
}

// exported is what became of an export.
type exported struct {
	Written int   `json:"written"`
	Present int   `json:"present"`
	Bytes   int64 `json:"bytes"`
}

// wanted is an instance to export.
type wanted struct{ study, series, instance string }

func (x *exportCommand) Run(e *env) error {
	if x.Parallel < 1 || x.Parallel > maxParallel {
		return fault.New(fault.Invalid, "--parallel: 1 to %d", maxParallel)
	}
	c, err := x.node(e)
	if err != nil {
		return err
	}
	var all []wanted
	for _, study := range x.Studies {
		found, err := instancesOf(e.ctx, c, study)
		if err != nil {
			return fmt.Errorf("study %s: %w", study, err)
		}
		all = append(all, found...)
	}
	var mu sync.Mutex
	var report exported
	done := 0
	progress := newBar(e, "exported", x.JSON)
	group, ctx := errgroup.WithContext(e.ctx)
	group.SetLimit(x.Parallel)
	for _, one := range all {
		group.Go(func() error {
			n, err := x.write(ctx, c, one)
			mu.Lock()
			defer mu.Unlock()
			done++
			progress.at(uint64(done), uint64(len(all)))
			switch {
			case errors.Is(err, os.ErrExist):
				report.Present++
				return nil
			case err == nil:
				report.Written++
				report.Bytes += n
			}
			return err
		})
	}
	err = group.Wait()
	progress.close()
	if x.JSON {
		return errors.Join(err, printJSON(e.stdout, report))
	}
	fmt.Fprintf(e.stdout, "%d written (%s), %d there already\n", report.Written, size(report.Bytes), report.Present)
	return err
}

// instancesOf lists a study's instances.
func instancesOf(ctx context.Context, c *client, study string) ([]wanted, error) {
	answer, err := c.do(ctx, http.MethodGet, "/dicom-web/studies/"+url.PathEscape(study)+"/instances?includefield=SeriesInstanceUID",
		nil, http.Header{"Accept": {"application/dicom+json"}})
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var all []wanted
	err = eachMatch(answer.Body, func(m match) error {
		all = append(all, wanted{study, m.first(dict.SeriesInstanceUID), m.first(dict.SOPInstanceUID)})
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fault.New(fault.NotFound, "no such study")
	}
	return all, err
}

// write fetches one instance into a file, whole or not at all.
func (x *exportCommand) write(ctx context.Context, c *client, w wanted) (int64, error) {
	folder := filepath.Join(x.To, fileName(w.study), fileName(w.series))
	name := filepath.Join(folder, fileName(w.instance)+".dcm")
	if _, err := os.Stat(name); err == nil {
		return 0, os.ErrExist
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return 0, err
	}
	path := "/dicom-web/studies/" + url.PathEscape(w.study) + "/series/" + url.PathEscape(w.series) + "/instances/" + url.PathEscape(w.instance)
	answer, err := c.do(ctx, http.MethodGet, path, nil, http.Header{
		"Accept": {`multipart/related; type="application/dicom"; transfer-syntax=*`},
	})
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, parameters, err := mime.ParseMediaType(answer.Header.Get("Content-Type"))
	if err != nil {
		return 0, err
	}
	part, err := multipart.NewReader(answer.Body, parameters["boundary"]).NextPart()
	if err != nil {
		return 0, fault.New(fault.Unavailable, "the node's answer breaks off: %w", err)
	}
	tmp, err := os.CreateTemp(folder, ".export-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	n, err := io.Copy(tmp, part)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return 0, err
	}
	return n, os.Rename(tmp.Name(), name)
}

// fileName makes a UID fit for a file name: real senders put all sorts of
// characters into UIDs.
func fileName(uid string) string {
	safe := []byte(uid)
	for i, c := range safe {
		if (c < '0' || c > '9') && c != '.' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			safe[i] = '_'
		}
	}
	if len(safe) == 0 || safe[0] == '.' {
		return "_" + string(safe)
	}
	return string(safe)
}
