package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// machine is what the figures hold for.
type machine struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"`
	Memory  string  `json:"memory"`
	Kernel  string  `json:"kernel"`
	Disk    string  `json:"disk"`
	Sync    float64 `json:"sync_milliseconds"` // median of appending 4 KiB and syncing it
	Write   float64 `json:"write_mb_per_second"`
	DCMTK   string  `json:"dcmtk"`
	Orthanc string  `json:"orthanc"`
	Go      string  `json:"go"`
}

func inspect(ctx context.Context, dir string) (machine, error) {
	m := machine{
		CPU: "unknown", Cores: runtime.NumCPU(), Go: runtime.Version(),
		Kernel:  firstLine(ctx, "uname", "-sr"),
		DCMTK:   strings.Trim(firstLine(ctx, "storescu", "--version"), "$ "),
		Orthanc: firstLine(ctx, "Orthanc", "--version"),
		Disk:    lastLine(ctx, "df", "--output=fstype,size,avail", "-h", dir),
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "model name\t: ")
		m.CPU, _, _ = strings.Cut(after, "\n")
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		_, after, _ := strings.Cut(string(b), "MemTotal:")
		line, _, _ := strings.Cut(after, "\n")
		m.Memory = strings.TrimSpace(line)
	}
	var err error
	m.Sync, m.Write, err = probe(dir)
	return m, err
}

// probe measures the disk: the median milliseconds of a small append with its
// sync, and the megabytes a second of large ones.
func probe(dir string) (milliseconds, rate float64, err error) {
	name := filepath.Join(dir, "probe")
	f, err := vfs.Default.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, 0, err
	}
	defer os.Remove(name) //nolint:errcheck // the folder is removed at the end
	piece := make([]byte, 4<<20)
	write := func(p []byte) (time.Duration, error) {
		began := time.Now()
		_, err := f.Write(p)
		return time.Since(began), cmp.Or(err, f.SyncData())
	}
	var waits []float64
	for range 50 {
		began := time.Now()
		if _, err := write(piece[:4<<10]); err != nil {
			return 0, 0, errors.Join(err, f.Close())
		}
		waits = append(waits, float64(time.Since(began).Microseconds())/1e3)
	}
	began := time.Now()
	const pieces = 32
	for range pieces {
		if _, err := write(piece); err != nil {
			return 0, 0, errors.Join(err, f.Close())
		}
	}
	return median(waits), pieces * float64(len(piece)) / 1e6 / time.Since(began).Seconds(), f.Close()
}

func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil && len(out) == 0 {
		return "not found"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func lastLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "unknown"
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(strings.Fields(lines[len(lines)-1]), " ")
}

func (m machine) markdown(b *bytes.Buffer) {
	fmt.Fprintf(b, "%d cores of %s, %s of memory, %s. Disk: %s (type, size, free); appending 4 KiB with a sync takes %s ms, 4 MiB at a time %s MB/s. %s; %s; %s.\n",
		m.Cores, m.CPU, m.Memory, m.Kernel, m.Disk, number(m.Sync), number(m.Write), m.DCMTK, m.Orthanc, m.Go)
}
