package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
	"pelago/node/admin"
)

// importCommand stores files into a node through STOW-RS, one request a file,
// several at once. It can be interrupted and run again: what was stored is
// remembered until the whole import is done, and would be recognised by the
// node as the same anyway.
type importCommand struct {
	target
	Paths    []string `arg:"" help:"Files, folders, zip archives, DICOMDIR files." type:"path"`
	Parallel int      `help:"Files on their way at once." default:"4"`
	Fresh    bool     `help:"Forget what an interrupted import has stored."`
}

// importReport is what became of an import.
type importReport struct {
	Stored  int      `json:"stored"`
	Warned  int      `json:"stored_with_warnings"`
	Skipped int      `json:"stored_earlier"`
	Other   int      `json:"not_dicom"`
	Bytes   int64    `json:"bytes"`
	Refused []refuse `json:"refused"`
	// Quarantined names the files that were stored with a warning.
	Quarantined []string `json:"quarantined"`
}

type refuse struct {
	File   string `json:"file"`
	Reason string `json:"reason"`
}

// item is a file to import: on disk, or inside a zip archive.
type item struct {
	name   string // for the report and the state
	stamp  string // size and time: a changed file is imported again
	size   int64
	listed bool // by a DICOMDIR, or named itself: then it must be DICOM
	open   func() (io.ReadCloser, error)
}

// Limits of an import.
const (
	maxParallel = 64
	maxImport   = 10 << 20 // files
	maxZipped   = 8 << 30  // bytes of one file inside a zip archive
)

func (i *importCommand) Run(e *env) error {
	if i.Parallel < 1 || i.Parallel > maxParallel {
		return fault.New(fault.Invalid, "--parallel: 1 to %d", maxParallel)
	}
	c, err := i.node(e)
	if err != nil {
		return err
	}
	run := &importing{client: c, done: map[string]bool{}}
	defer run.close()
	items, err := run.collect(i.Paths)
	if err != nil {
		return err
	}
	var node admin.Status
	if err := c.get(e.ctx, "/api/status", &node); err != nil {
		return err
	}
	if err := run.openState(node.Node, i.Paths, i.Fresh); err != nil {
		return err
	}
	run.bar = newBar(e, "imported", i.JSON)
	err = run.all(e.ctx, items, i.Parallel)
	run.bar.close()
	switch {
	case err != nil && run.report.Stored+run.report.Skipped > 0:
		fmt.Fprintln(e.stderr, "pelago: the import was cut short; the same command goes on where it ended")
	case err == nil && len(run.report.Refused) == 0:
		err = run.dropState()
	}
	slices.Sort(run.report.Quarantined)
	slices.SortFunc(run.report.Refused, func(a, b refuse) int { return strings.Compare(a.File, b.File) })
	return errors.Join(err, run.print(e, i.JSON))
}

// importing is one import under way.
type importing struct {
	client *client
	zips   []*zip.ReadCloser
	bar    *bar

	mu     sync.Mutex
	report importReport
	done   map[string]bool
	state  *os.File
	total  int
	at     int
}

func (r *importing) close() {
	for _, z := range r.zips {
		z.Close() //nolint:errcheck // only read
	}
	if r.state != nil {
		r.state.Close() //nolint:errcheck // each line was checked
	}
}

// collect lists what the paths hold, in a fixed order.
func (r *importing) collect(paths []string) ([]item, error) {
	var items []item
	add := func(found ...item) error {
		if items = append(items, found...); len(items) > maxImport {
			return fault.New(fault.Full, "more than %d files in one import", maxImport)
		}
		return nil
	}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return fault.New(fault.NotFound, "import: %w", err)
			}
			if !entry.Type().IsRegular() {
				if name == path && !entry.IsDir() {
					r.report.Refused = append(r.report.Refused, refuse{name, "neither a file nor a folder"})
				}
				return nil
			}
			switch {
			case strings.EqualFold(filepath.Ext(name), ".zip"):
				found, err := r.zipped(name)
				if err != nil {
					r.report.Refused = append(r.report.Refused, refuse{name, err.Error()})
					return nil //nolint:nilerr // reported; the import goes on
				}
				return add(found...)
			case isDICOMDIR(name) && name == path:
				found, err := listed(name)
				if err != nil {
					return err
				}
				return add(found...)
			case isDICOMDIR(name):
				return nil // its files are in the tree as well
			}
			info, err := entry.Info()
			if err != nil {
				return err
			}
			one := onDisk(name, info)
			one.listed = name == path
			return add(one)
		})
		if err != nil {
			return nil, err
		}
	}
	return items, nil
}

func isDICOMDIR(name string) bool { return strings.EqualFold(filepath.Base(name), "DICOMDIR") }

func onDisk(name string, info fs.FileInfo) item {
	return item{
		name: name, size: info.Size(), stamp: fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano()),
		open: func() (io.ReadCloser, error) { return os.Open(name) },
	}
}

func (r *importing) zipped(name string) ([]item, error) {
	z, err := zip.OpenReader(name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "zip archive: %w", err)
	}
	r.zips = append(r.zips, z)
	var items []item
	for _, f := range z.File {
		if f.FileInfo().IsDir() || isDICOMDIR(f.Name) {
			continue
		}
		items = append(items, item{
			name: name + "!" + f.Name, size: int64(f.UncompressedSize64), stamp: fmt.Sprintf("%d-%08x", f.UncompressedSize64, f.CRC32),
			open: f.Open,
		})
	}
	return items, nil
}

// listed reads the files that a DICOMDIR refers to (PS3.3 F.3.2.2: Referenced
// File ID is a path in components). A component that leads outside the
// file-set is refused.
func listed(name string) ([]item, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	meta, body, err := dicom.OpenFile(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("DICOMDIR: %w", err)
	}
	syntax, _ := dict.Syntax(meta.Syntax)
	header, err := dicom.ReadHeader(body, syntax, dicom.DefaultLimits)
	if err != nil {
		return nil, fmt.Errorf("DICOMDIR: %w", err)
	}
	records := header.Dataset.Get(dict.DirectoryRecordSequence)
	if records == nil {
		return nil, fault.New(fault.Invalid, "DICOMDIR without directory records")
	}
	var items []item
	for _, record := range records.Items {
		parts := record.Strings(dict.ReferencedFileID)
		if len(parts) == 0 {
			continue
		}
		path := filepath.Join(parts...)
		if !filepath.IsLocal(path) {
			return nil, fault.New(fault.Invalid, "DICOMDIR refers to a file outside its file-set")
		}
		path = filepath.Join(filepath.Dir(name), path)
		info, err := os.Stat(path)
		if err != nil {
			items = append(items, item{name: path, listed: true, open: func() (io.ReadCloser, error) { return nil, err }})
			continue
		}
		one := onDisk(path, info)
		one.listed = true
		items = append(items, one)
	}
	return items, nil
}

// openState reads what an interrupted import of the same paths into the same
// node has stored. A node is known by its identity: another one behind the same
// address has none of it.
func (r *importing) openState(node string, paths []string, fresh bool) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "pelago")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(node + "\x00" + strings.Join(paths, "\x00")))
	name := filepath.Join(cache, fmt.Sprintf("import-%x", sum[:8]))
	if fresh {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if r.state, err = os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return err
	}
	lines := bufio.NewScanner(r.state)
	for lines.Scan() {
		r.done[lines.Text()] = true
	}
	return lines.Err()
}

func (r *importing) dropState() error { return os.Remove(r.state.Name()) }

func (r *importing) all(ctx context.Context, items []item, parallel int) error {
	r.total = len(items)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, one := range items {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return r.one(ctx, one) })
	}
	return group.Wait()
}

// one stores a file. Only what no further file can survive is an error.
func (r *importing) one(ctx context.Context, it item) error {
	sum := sha256.Sum256([]byte(it.name + "\x00" + it.stamp))
	key := fmt.Sprintf("%x", sum[:16])
	r.mu.Lock()
	known := r.done[key]
	r.mu.Unlock()
	outcome := skipped
	var err error
	if !known {
		outcome, err = r.send(ctx, it)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.Full) || fault.Is(err, fault.Denied) {
		return fmt.Errorf("%s: %w", it.name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at++
	r.bar.at(uint64(r.at), uint64(r.total))
	switch {
	case err != nil:
		r.report.Refused = append(r.report.Refused, refuse{it.name, err.Error()})
		return nil
	case outcome == skipped:
		r.report.Skipped++
		return nil
	case outcome == notDICOM:
		r.report.Other++
		return nil
	case outcome == warned:
		r.report.Warned++
		r.report.Quarantined = append(r.report.Quarantined, it.name)
	}
	r.report.Stored++
	r.report.Bytes += it.size
	_, err = fmt.Fprintln(r.state, key)
	return err
}

type outcome uint8

const (
	stored outcome = iota
	warned
	skipped
	notDICOM
)

// send stores one file through STOW-RS.
func (r *importing) send(ctx context.Context, it item) (outcome, error) {
	f, err := it.open()
	if err != nil {
		return stored, fault.New(fault.NotFound, "%w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(io.LimitReader(f, maxZipped), 64<<10)
	head, err := in.Peek(132)
	if err != nil && !errors.Is(err, io.EOF) {
		return stored, err
	}
	if !it.listed && !looksDICOM(head) {
		return notDICOM, nil
	}
	answer, err := r.client.do(ctx, http.MethodPost, "/dicom-web/studies", io.Reader(in), http.Header{
		"Content-Type": {"application/dicom"}, "Accept": {"application/dicom+json"},
	})
	if err != nil {
		return stored, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusAccepted {
		return warned, nil
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return stored, err
}

// looksDICOM tells DICOM files from the rest of a tree: by their magic, or by
// starting with an element of group 2 or 8.
func looksDICOM(head []byte) bool {
	if len(head) >= 132 && string(head[128:132]) == "DICM" {
		return true
	}
	return len(head) >= 8 && (bytes.HasPrefix(head, []byte{2, 0}) || bytes.HasPrefix(head, []byte{8, 0}) || bytes.HasPrefix(head, []byte{0, 8})) &&
		head[3] == 0
}

func (r *importing) print(e *env, asJSON bool) error {
	if asJSON {
		if r.report.Refused == nil {
			r.report.Refused = []refuse{}
		}
		if r.report.Quarantined == nil {
			r.report.Quarantined = []string{}
		}
		if err := printJSON(e.stdout, r.report); err != nil {
			return err
		}
	} else {
		for _, one := range r.report.Refused {
			fmt.Fprintf(e.stdout, "refused %s: %s\n", one.File, one.Reason)
		}
		for _, name := range r.report.Quarantined {
			fmt.Fprintf(e.stdout, "quarantined %s: stored, but not shown, as its UID is taken or deleted ('pelago conflicts')\n", name)
		}
		fmt.Fprintf(e.stdout, "%d stored (%s, %d with warnings), %d stored earlier, %d refused, %d not DICOM, in %s\n",
			r.report.Stored, size(r.report.Bytes), r.report.Warned, r.report.Skipped, len(r.report.Refused), r.report.Other,
			time.Since(r.bar.began).Round(time.Millisecond))
	}
	if n := len(r.report.Refused); n > 0 {
		return fault.New(fault.Conflict, "%d files were refused", n)
	}
	return nil
}
