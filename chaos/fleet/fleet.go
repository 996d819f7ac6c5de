package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"pelago/chaos/proc"
	"pelago/chaos/world"
	"pelago/cluster/fault"
)

// Options say what network to start.
type Options struct {
	Binary string // of pelago
	Dir    string // for logs and data, a folder a node
	// Sites are where nodes stand, in the order in which they join; the first founds
	// the network. A site that is there twice has two nodes.
	Sites []world.Site
	World world.Options
	// Env is added to every node's environment.
	Env []string
	// Ready is how long a node may take to be ready, the way of its catalogue
	// included; 0: two minutes.
	Ready time.Duration
}

// Fleet is a running network.
type Fleet struct {
	World *world.World
	Nodes []*Node
	o     Options
	open  context.Context // of gates
	close context.CancelFunc
}

// Node is a node of a fleet.
type Node struct {
	*proc.Node
	Site world.Site
	Gate *world.Gate
	dir  string
	args []string
}

// Start founds a network and has the others join it, one after the other.
func Start(ctx context.Context, o Options) (*Fleet, error) {
	if o.Ready == 0 {
		o.Ready = 2 * time.Minute
	}
	w, err := world.New(o.World)
	if err != nil {
		return nil, err
	}
	open, cancel := context.WithCancel(context.Background())
	f := &Fleet{World: w, o: o, open: open, close: cancel}
	for _, site := range o.Sites {
		if _, err := f.Add(ctx, site, ""); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// Add starts a node at a site, which founds the network if it is the first, and
// else joins it through the first node that runs. data is a data directory, "":
// a fresh one.
func (f *Fleet) Add(ctx context.Context, site world.Site, data string) (*Node, error) {
	n, err := f.prepare(site)
	if err != nil {
		return nil, err
	}
	args := n.args
	if i := slices.IndexFunc(f.Nodes, func(n *Node) bool { return n.Running() }); i >= 0 {
		token, err := f.Nodes[i].Join(ctx)
		if err != nil {
			return nil, err
		}
		args = append(slices.Clip(args), "--join", f.Nodes[i].Gate.Addr(), "--token", token)
	}
	n.Node, err = proc.Start(ctx, proc.Options{
		Binary: f.o.Binary, Dir: n.dir, Data: data, Site: string(site), Args: args, Ready: f.o.Ready,
		Env: append([]string{world.Environ(site)}, f.o.Env...),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", site, err)
	}
	f.Nodes = append(f.Nodes, n)
	return n, nil
}

// prepare opens the gate of a node that is to come.
func (f *Fleet) prepare(site world.Site) (*Node, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, err
	}
	listens := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	gate, err := f.World.Gate(f.open, site, listens)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(f.o.Dir, fmt.Sprintf("%02d-%s", len(f.Nodes)+1, site))
	return &Node{Site: site, Gate: gate, dir: dir, args: []string{"--peer", listens, "--advertise", gate.Addr()}}, os.MkdirAll(dir, 0o700)
}

// Join makes a token by which another node may join.
func (n *Node) Join(ctx context.Context) (token string, err error) {
	made, err := n.Command(ctx, "token", "--data", n.Data())
	if err != nil {
		return "", err
	}
	if made.Code != 0 {
		return "", fault.New(fault.Other, "pelago token: %s", strings.TrimSpace(made.Stderr))
	}
	lines := strings.Split(strings.TrimSpace(made.Stdout), "\n")
	return lines[len(lines)-1], nil
}

// Close ends all nodes, in order, and the world.
func (f *Fleet) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), f.o.Ready)
	defer cancel()
	var group errgroup.Group
	for _, n := range f.Nodes {
		group.Go(func() error { return n.Stop(ctx) })
	}
	err := group.Wait()
	f.close()
	f.World.Close()
	return err
}
