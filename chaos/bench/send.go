package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"pelago/chaos/bench/input"
	"pelago/chaos/bench/peer"
	"pelago/dimse/command"
	"pelago/dimse/dicom"
	"pelago/dimse/scu"
)

// sendReal stores real files byte for byte, in whatever transfer syntax they
// are: storescu would have to be told each, and rewrites some.
func sendReal(ctx context.Context, to *peer.Server, folders []string) error {
	var paths []string
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	var kinds []scu.Kind
	known := map[scu.Kind]bool{}
	for _, path := range paths {
		file, err := input.Load(path)
		if err != nil {
			return err
		}
		kind := scu.Kind{Class: file.Meta.Class, Syntax: file.Meta.Syntax}
		if !known[kind] {
			known[kind] = true
			kinds = append(kinds, kind)
		}
	}
	sender := scu.NewSender(scu.Target{Addr: to.DICOM, Called: to.AE, Calling: "BENCH"}, kinds, 1)
	var failure error
	for _, path := range paths {
		if failure = sendOne(ctx, sender, path); failure != nil {
			break
		}
	}
	return errors.Join(failure, sender.Close(ctx))
}

// sendSlowly stores the images of a folder over one association that lasts a
// time, evenly.
func sendSlowly(ctx context.Context, to *peer.Server, folder string, last time.Duration) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*"))
	if err != nil {
		return err
	}
	file, err := input.Load(paths[0])
	if err != nil {
		return err
	}
	sender := scu.NewSender(scu.Target{Addr: to.DICOM, Called: to.AE, Calling: "BENCH"}, []scu.Kind{{Class: file.Meta.Class, Syntax: file.Meta.Syntax}}, 1)
	tick := time.NewTicker(last / time.Duration(len(paths)))
	defer tick.Stop()
	for _, path := range paths {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), sender.Close(ctx))
		}
		if err := sendOne(ctx, sender, path); err != nil {
			return errors.Join(err, sender.Close(ctx))
		}
	}
	return sender.Close(ctx)
}

func sendOne(ctx context.Context, sender *scu.Sender, path string) error {
	file, err := input.Load(path)
	if err != nil {
		return err
	}
	status, err := sender.Store(ctx, scu.Instance{
		Class: file.Meta.Class, UID: file.Meta.Instance, Syntax: file.Meta.Syntax,
		Open: func(context.Context, string) (io.ReadCloser, error) {
			_, body, err := dicom.OpenFile(bytes.NewReader(file.File))
			return io.NopCloser(body), err
		},
	}, scu.Originator{})
	if err == nil && status != command.Success {
		err = fmt.Errorf("status %04X", uint16(status))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return nil
}
