package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// bar draws progress on a terminal, and stays silent elsewhere.
type bar struct {
	e     *env
	label string
	on    bool
	drawn bool
	began time.Time
}

func newBar(e *env, label string, quiet bool) *bar {
	return &bar{e: e, label: label, on: !quiet && isTerminal(e.stderr) && os.Getenv("TERM") != "dumb", began: time.Now()}
}

func (b *bar) at(done, total uint64) {
	if !b.on || total == 0 {
		return
	}
	b.drawn = true
	const width = 40
	filled := int(min(done, total) * width / total)
	left := ""
	if done > 0 {
		rest := time.Duration(float64(time.Since(b.began)) * float64(total-min(done, total)) / float64(done))
		left = rest.Round(time.Second).String() + " left"
	}
	fmt.Fprintf(b.e.stderr, "\r\x1b[K%s [%s%s] %d of %d %s", b.label, strings.Repeat("=", filled), strings.Repeat(" ", width-filled), done, total, left)
}

func (b *bar) close() {
	if b.drawn {
		fmt.Fprint(b.e.stderr, "\r\x1b[K")
	}
}
