// Command bench measures the figures that Pelago is held to: each as a ratio,
// in one run on one machine, beside the peer or the limit it is compared with,
// in real processes. It writes docs/benchmarks.md or, of nodes in a network with
// delay and narrow links between them, docs/benchmarks-network.md, or, of packs that
// are spread over such a network as shards, docs/benchmarks-shards.md.
//
//	go run ./chaos/bench -out docs/benchmarks.md
//	go run ./chaos/bench -network -out docs/benchmarks-network.md
//	go run ./chaos/bench -shards -out docs/benchmarks-shards.md
//	go run ./chaos/bench -only 'store' -rounds 3
//	go run ./chaos/bench -quick
//
// A row is measured in rounds; in each round every competitor has its turn, so
// that what else happens on the machine hits all alike. Figures are medians of
// the rounds, ratios are taken within each round. Competitors are started on
// empty directories, and the disk is given time to write back before each turn.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"pelago/chaos/bench/peer"
)

func main() {
	if was, err := peer.Helper(os.Args); was {
		exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if err == nil {
		err = run(ctx, o, os.Stdout, os.Stderr)
	}
	exit(err)
}

func exit(err error) {
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are the command line.
type options struct {
	out, dir, binary, samples, profile, kept string
	only                                     *regexp.Regexp
	rounds                                   int
	quick, json, list, network, shards       bool
	busy                                     bool
	sustainedTime                            time.Duration
	sustainedBytes                           int64
	backlog                                  int
	command                                  string // as it was given, for the report
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	var only string
	var gigabytes float64
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(usage)
	f.StringVar(&o.out, "out", "", "file to write the table to; none: standard output only")
	f.StringVar(&o.dir, "dir", "", "folder for inputs and data, on the disk to be measured; none: a temporary one, removed at the end")
	f.StringVar(&o.binary, "pelago", "", "the node's binary; none: build it")
	f.StringVar(&o.samples, "samples", os.Getenv("PELAGO_SAMPLES"), "folder of real DICOM files; none: ../shared/dicom")
	f.StringVar(&o.kept, "catalogue", "", "folder to keep the catalogue of many studies in for later runs; none: load it anew, which takes minutes")
	f.StringVar(&o.profile, "profile", "", "folder to write CPU profiles of the node to")
	f.StringVar(&only, "only", "", "measure only rows whose name matches this regular expression")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each row")
	f.BoolVar(&o.quick, "quick", false, "small inputs: shows that everything runs, measures nothing")
	f.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	f.BoolVar(&o.network, "network", false, "measure nodes in a network instead of a node alone")
	f.BoolVar(&o.shards, "shards", false, "measure shards: packs that are spread over sites")
	f.BoolVar(&o.busy, "busy", false, "say on the page that the machine had other work meanwhile")
	f.BoolVar(&o.list, "list", false, "list the rows and end")
	f.DurationVar(&o.sustainedTime, "sustained-time", 10*time.Minute, "the sustained row ends after this long …")
	f.Float64Var(&gigabytes, "sustained-gb", 40, "… or this many gigabytes sent to each competitor")
	f.IntVar(&o.backlog, "backlog", 0, "series of the backlog row; the costliest are a tenth of them; 0: a million")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if o.network && o.shards {
		return o, errors.New("-network and -shards are pages of their own")
	}
	if f.NArg() > 0 || o.rounds < 1 || gigabytes <= 0 {
		return o, errors.New("no arguments are taken, and at least one round and some bytes are needed")
	}
	o.sustainedBytes = int64(gigabytes * 1e9)
	if o.samples == "" {
		o.samples = filepath.Join("..", "shared", "dicom")
	}
	o.command = strings.TrimSpace("go run ./chaos/bench " + strings.Join(args, " "))
	return o, nil
}

// bench is one run: the rows share its inputs and its programs.
type bench struct {
	options
	size    size
	net     netSize
	cut     shardSize
	log     io.Writer
	pelago  peer.Pelago
	shim    string
	inputs  inputs
	measure int // directories given out
}

// run measures the rows and writes the report.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.list {
		for _, r := range o.rows() {
			fmt.Fprintln(stdout, r.name)
		}
		return nil
	}
	b, err := prepare(ctx, o, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.clean()) }()
	report := report{Command: o.command, Network: o.network, Shards: o.shards, Quick: o.quick, Busy: o.busy, Began: time.Now().UTC()}
	if report.Machine, err = inspect(ctx, b.dir); err != nil {
		return err
	}
	for _, r := range o.rows() {
		if !o.only.MatchString(r.name) {
			continue
		}
		began := time.Now()
		b.say("%s", r.name)
		s := &sheet{}
		err := r.measure(ctx, b, s)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.say("%s: %v", r.name, err)
			err = errors.New(strings.ReplaceAll(err.Error(), b.dir, "DIR")) // the report names no machine's paths
		}
		report.add(r, s, err, time.Since(began))
		if err := report.save(o); err != nil { // a run that is cut short keeps its rows
			return err
		}
	}
	return report.write(o, stdout)
}

// prepare makes the folder, the node's binary and the shim.
func prepare(ctx context.Context, o options, log io.Writer) (*bench, error) {
	b := &bench{options: o, log: log, size: full, net: netFull, cut: shardsFull}
	if o.quick {
		b.size, b.net, b.cut, b.sustainedTime, b.sustainedBytes = quick, netQuick, shardsQuick, time.Second, 16<<20
	}
	if o.backlog > 0 {
		b.net.backlog, b.net.lone = o.backlog, max(o.backlog/10, 1)
	}
	var err error
	if o.dir == "" {
		b.dir, err = os.MkdirTemp("", "pelago-bench-")
	} else {
		b.dir, err = filepath.Abs(filepath.Join(o.dir, "pelago-bench"))
		err = errors.Join(err, os.RemoveAll(b.dir), os.MkdirAll(b.dir, 0o700))
	}
	if err != nil {
		return nil, err
	}
	b.pelago.Binary = o.binary
	if o.binary == "" {
		b.pelago.Binary = filepath.Join(b.dir, "pelago")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.pelago.Binary, "pelago/cmd/pelago")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, errors.Join(fmt.Errorf("build the node: %w: %s", err, out), b.clean())
		}
	}
	if !o.network && !o.shards {
		if b.shim, err = peer.Shim(ctx, b.dir); err != nil {
			return nil, errors.Join(err, b.clean())
		}
	}
	b.inputs.dir = filepath.Join(b.dir, "inputs")
	return b, nil
}

func (b *bench) clean() error { return os.RemoveAll(b.dir) }

// say tells the operator what goes on.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// fresh returns a directory that does not exist yet.
func (b *bench) fresh() string {
	b.measure++
	return filepath.Join(b.dir, fmt.Sprintf("data-%03d", b.measure))
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
