package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/cluster/fault"
)

// demoCommand shows a network at work, on real images where there are some:
// every site is a process of its own on this machine, and everything it shows
// goes through the doors that a hospital would use.
type demoCommand struct {
	Sites   int    `help:"How many sites; 1 shows what a node alone does." default:"5"`
	Exit    bool   `help:"End by itself; the exit code says whether every step worked." env:"DEMO_EXIT"`
	Samples string `help:"Folder of DICOM files to store; the default is what PELAGO_SAMPLES names, else ../shared/dicom, else images made on the spot." env:"PELAGO_SAMPLES"`
	JSON    bool   `name:"json" help:"Print JSON, one object a line."`
}

// demoSites are the sites' names in the order in which they join: as many as
// one machine should be asked to run.
var demoSites = [...]string{"north", "south", "east", "west", "island", "harbour", "hill", "lake", "forest"}

// demo is a demonstration under way.
type demo struct {
	e       *env
	dir     string
	samples string
	images  *images
	sites   []*demoSite
	away    *demoSite   // the one that is killed, and comes back
	burnt   []*demoSite // those that are killed for good
	say     func(string)
}

// demoStep is a part of a demonstration; it says what it has seen.
type demoStep struct {
	name string
	run  func(context.Context) (string, error)
}

func (d *demoCommand) Run(e *env) (err error) {
	if most := len(demoSites) - 1; d.Sites < 1 || d.Sites > most { // one more joins later
		return fault.New(fault.Invalid, "--sites: 1 to %d", most)
	}
	dir, err := os.MkdirTemp("", "pelago-demo-")
	if err != nil {
		return err
	}
	show := &demo{e: e, dir: dir, samples: d.Samples, images: newImages(filepath.Join(dir, "images")), say: d.meanwhile(e)}
	defer func() {
		err = errors.Join(err, show.stop(), os.RemoveAll(dir))
	}()
	for i, name := range demoSites[:d.Sites] {
		show.sites = append(show.sites, newDemoSite(e, dir, name, i))
	}
	steps := show.network()
	if d.Sites == 1 {
		steps = show.one()
	}
	for i, step := range steps {
		began := time.Now()
		said, err := step.run(e.ctx)
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, step.name, err)
		}
		if err := d.tell(e, i+1, step.name, said, time.Since(began)); err != nil {
			return err
		}
	}
	if d.Exit {
		return nil
	}
	if err := d.invite(show); err != nil {
		return err
	}
	<-e.ctx.Done()
	return nil
}

// tell says what a step did.
func (d *demoCommand) tell(e *env, number int, name, said string, took time.Duration) error {
	if d.JSON {
		return json.NewEncoder(e.stdout).Encode(map[string]any{"step": number, "name": name, "seconds": took.Seconds(), "result": said})
	}
	_, err := fmt.Fprintf(e.stdout, "%2d. %-56s %6.2f s  %s\n", number, name, took.Seconds(), said)
	return err
}

// meanwhile says how far a step is that takes a while.
func (d *demoCommand) meanwhile(e *env) func(string) {
	return func(said string) {
		if !d.JSON {
			fmt.Fprintf(e.stdout, "    … %s\n", said)
		}
	}
}

// invite says what to try.
func (d *demoCommand) invite(show *demo) error {
	if d.JSON {
		type where struct {
			Site  string `json:"site"`
			DICOM string `json:"dicom"`
			Web   string `json:"web"`
			Data  string `json:"data"`
		}
		var all []where
		for _, s := range show.there() {
			all = append(all, where{s.name, s.node.DICOM(), s.node.HTTP(), s.node.Data()})
		}
		return json.NewEncoder(show.e.stdout).Encode(map[string]any{"sites": all})
	}
	there := show.there()
	first, last := there[0], there[len(there)-1]
	var rows [][]string
	for _, s := range there {
		rows = append(rows, []string{s.name, s.node.DICOM(), s.node.HTTP() + "/", s.node.Data()})
	}
	fmt.Fprintln(show.e.stdout)
	if err := table(show.e.stdout, []string{"SITE", "DICOM (" + first.node.AE() + ")", "PAGE", "DATA"}, rows); err != nil {
		return err
	}
	host, port, _ := strings.Cut(last.node.DICOM(), ":")
	_, err := fmt.Fprintf(show.e.stdout, `
All of it stays up until Ctrl-C. Look at %[1]s/ and try, at any site:
  echoscu -aec %[2]s %[3]s %[4]s
  findscu -S -k QueryRetrieveLevel=STUDY -k PatientName -k StudyInstanceUID -aec %[2]s %[3]s %[4]s
  mkdir got; getscu -S -k QueryRetrieveLevel=STUDY -k StudyInstanceUID=%[5]s -od got -aec %[2]s %[3]s %[4]s
  curl '%[6]s/dicom-web/studies?limit=5'
  bin/pelago status --data %[7]s
  bin/pelago find --data %[7]s
`, first.node.HTTP(), last.node.AE(), host, port, show.images.studies[0].uid, last.node.HTTP(), last.node.Data())
	return err
}

// stop ends the nodes, all at once.
func (d *demo) stop() error {
	var group errgroup.Group
	for _, s := range d.sites {
		group.Go(s.stop)
	}
	return group.Wait()
}
