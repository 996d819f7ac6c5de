package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"pelago/cluster/identity"
	"pelago/dimse/scp"
	"pelago/node/admin"
	"pelago/node/ae"
	"pelago/node/archive"
	"pelago/node/audit"
	"pelago/node/capacity"
	"pelago/node/config"
	"pelago/node/datadir"
	"pelago/node/evict"
	"pelago/node/placement"
	"pelago/node/protect"
	"pelago/node/purge"
	"pelago/node/recalled"
	"pelago/node/repair"
	"pelago/node/spread"
	"pelago/node/work"
	"pelago/query/patients"
	"pelago/replication/catalog"
	"pelago/shard/keys"
)

// node is a running node. Its parts are started in the order of the fields
// below and stopped in reverse.
type node struct {
	config  config.Config
	log     *slog.Logger
	metrics *admin.Metrics
	id      string
	began   time.Time

	dir        *datadir.Dir
	announced  chan struct{} // closed once commands find the node by its data directory
	self       *identity.Node
	keys       *keys.Ring
	trail      *trail
	catalog    *catalog.Catalog
	network    *network
	placement  *placement.Placement
	patients   *patients.Patients
	archive    *archive.Archive
	recalled   *recalled.Client
	distance   distance
	shards     shards
	evict      *evict.Evict   // nil without a rule, and at a witness
	spread     *spread.Spread // nil at a witness, which has no packs
	protect    *protect.Protect
	protecting atomic.Pointer[protect.Protect] // the same, for what may be called before
	purger     *purge.Purger                   // nil at a witness
	capacity   *capacity.Capacity
	repair     *repair.Repair                // nil at a witness
	repairing  atomic.Pointer[repair.Repair] // the same, for what may be called before
	used       activity

	face  *ae.Face
	tasks *work.Group
	work  errgroup.Group // runs tasks
	quit  context.CancelFunc

	http     *http.Server
	requests *gate
	dimse    *scp.Server
	faces    errgroup.Group
	cut      context.CancelFunc // ends associations at once

	dicomAddr, dicomTLSAddr, baseURL string // of the ports that are open
	reached                          atomic.Pointer[reached]

	ending context.Context // ends when the node is told to end, or cannot go on
	fatal  context.CancelCauseFunc
	died   atomic.Bool // nothing may be written any more
}

// reached is where clients reach the node, for others to be told.
type reached struct{ dicom, web string } // host:port

// Time limits of a clean shutdown.
const (
	drainTime = 20 * time.Second // for associations and requests under way
	closeTime = 10 * time.Second
)

// exitDied is the exit code of a node that ended because something could not be
// written: whoever restarts it should wait longer each time.
const exitDied = 3

// startNode opens the data directory and starts everything; when it returns the
// node is ready. The order: first what must not be shared (the lock), then what
// makes bytes readable (keys) and the node a member, then the stores, then the
// background work, the network's first, and the ports for clients last, so that
// nobody is answered before everything acknowledged earlier can be found.
func startNode(ctx context.Context, c config.Config, log *slog.Logger) (_ *node, err error) {
	n := &node{config: c, log: log, began: time.Now(), metrics: admin.NewMetrics(), announced: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	n.ending, n.fatal = context.WithCancelCause(ctx)
	if n.dir, err = datadir.Open(c.Data); err != nil {
		return nil, err
	}
	if err = n.enter(n.ending); err != nil {
		return nil, err
	}
	if err = n.openStores(); err != nil {
		return nil, err
	}
	faces, err := n.makeFaces()
	if err != nil {
		return nil, err
	}
	n.startWork()
	if err = n.network.begin(n.ending); err != nil {
		return nil, err
	}
	if err = n.listen(faces); err != nil {
		return nil, err
	}
	_, web, _ := strings.Cut(n.baseURL, "://")
	n.reached.Store(&reached{dicom: n.dicomAddr, web: web})
	err = n.dir.Announce(datadir.Node{
		PID: os.Getpid(), HTTP: n.baseURL, Certificate: faces.pin, AE: c.DICOM.AE, DICOM: n.dicomAddr, Peer: n.network.place.Address, Token: faces.token,
	})
	if err == nil {
		close(n.announced)
	}
	return n, err
}

// ready reports why the node is not to be sent work. Who asks in the moment
// before commands find the node waits for its end.
func (n *node) ready() error {
	select {
	case <-n.announced:
	case <-n.ending.Done():
	}
	return n.ending.Err()
}

// enter makes the node a member of a network: with its keys, and the port open
// that others know it by.
func (n *node) enter(ctx context.Context) (err error) {
	if n.self, n.keys, err = openKeys(n.config); err != nil {
		return err
	}
	n.id = n.self.ID()
	n.network = &network{log: n.log, self: n.self, watch: watch{metrics: n.metrics}}
	if n.network.listener, n.network.place, err = openPort(n.config.Peer); err != nil {
		return err
	}
	if n.network.membership, err = n.becomeMember(ctx, n.self, n.network.place); err != nil {
		return err
	}
	n.config.Site = n.network.membership.Name().Site
	return nil
}

// openStores opens everything under the data directory.
func (n *node) openStores() (err error) {
	if mended := n.keys.Mended(); mended > 0 {
		n.log.Warn("one file of the ring of study keys was damaged and is made whole from the other: look at the disk", "rotten_ranges", mended)
	}
	if damaged := n.keys.Damaged(); damaged > 0 {
		n.log.Error("the ring of study keys is damaged in both its files; verify tells which instances cannot be read", "rotten_ranges", damaged)
	}
	if n.trail, err = openTrail(n.config, n.id, n.log); err != nil {
		return err
	}
	o := archiveOptions(n.config, n.self, n.keys, n.log)
	o.Fatal = n.die
	o.Observe = n.metrics.ObserveWork
	o.PacksLost = n.packsLost
	n.shards.note = watchHeld(&o)
	if n.catalog, err = archive.OpenCatalog(o); err != nil {
		return err
	}
	n.network.catalog, n.network.meta = n.catalog, n.meta
	// By tasks, and they start later.
	n.network.replaced = func() {
		n.archive.Journal().Replaced()
		if n.network.studies != nil {
			n.network.studies.Replaced()
		}
	}
	n.network.kept = func() time.Duration { return n.archive.Journal().Kept() }
	n.network.led = func() { n.archive.Journal().Retry() }
	if err = n.network.open(n.config, n.keys); err != nil {
		return err
	}
	if err = n.openPlacement(); err != nil {
		return err
	}
	o.Catalog, o.Propose, o.Decide, o.Takes = n.catalog, n.network.group, n.network.group, n.network.takes
	if n.network.own().Witness {
		o.StagingAhead = 0 // nothing will ever lie in it
	}
	n.patients = patients.New(n.catalog, n.network.group)
	o.Issuer = n.patients.At(n.config.Site).Issuer
	n.watchPacks(&o)
	n.watchEvicted(&o)
	o.Graces = n.graces()
	if n.archive, err = archive.Open(o); err != nil {
		return err
	}
	n.trail.patientOf = n.patientOf
	n.capacity = capacity.New(n.catalog, n.placement)
	if err = n.openShards(); err != nil {
		return err
	}
	if err = n.openRecalled(); err != nil {
		return err
	}
	if err = n.openSpread(); err != nil {
		return err
	}
	if err = n.openDistance(); err != nil {
		return err
	}
	n.openProtect()
	if err = n.openRepair(); err != nil {
		return err
	}
	n.openEvict()
	return n.openPurge()
}

// patientOf names a study's patient for the audit trail; nobody if the study is
// not in the catalogue.
func (n *node) patientOf(study string) audit.Patient {
	patients, err := n.archive.Catalog().PatientsOf(study)
	if err != nil || len(patients) == 0 {
		return audit.Patient{}
	}
	return audit.Patient{ID: patients[0].ID, Issuer: patients[0].Issuer}
}

// openKeys opens the node's identity and its ring of study keys.
func openKeys(c config.Config) (self *identity.Node, ring *keys.Ring, err error) {
	folder := vfs.Default.PathJoin(c.Data, "keys")
	if self, err = identity.Open(vfs.Default, folder); err != nil {
		return nil, nil, err
	}
	ring, err = keys.Open(vfs.Default, folder, self)
	return self, ring, err
}

// archiveOptions are the archive's settings.
func archiveOptions(c config.Config, self *identity.Node, ring *keys.Ring, log *slog.Logger) archive.Options {
	return archive.Options{
		FS: vfs.Default, Dir: c.Data, Node: self.ID(), Site: c.Site, Keys: ring, Signer: self, Log: log,
		StagingBytes: int64(c.Store.Staging), StagingAhead: int64(c.Store.Ahead), TableBytes: int64(c.Store.TableSize), Ballast: int64(c.Store.Ballast),
		Quiet: time.Duration(c.Store.Quiet), Gather: time.Duration(c.Store.Gather), Grace: time.Duration(c.Store.Grace),
		CacheBytes: int64(c.Store.Cache), ChunkBytes: int64(c.Store.Chunks),
		BulkLost: (&heldNote{}).lost,
	}
}

// startWork starts the background tasks, those that others rely on first. One
// that fails for good ends the node.
func (n *node) startWork() {
	tasks := append(n.trail.tasks(), n.network.tasks()...)
	tasks = append(tasks, n.archive.Tasks()...)
	tasks = append(tasks, n.placement.Tasks()...)
	tasks = append(tasks, n.capacity.Task())
	tasks = append(tasks, n.shards.tasks()...)
	tasks = append(tasks, n.spreadTasks()...)
	tasks = append(tasks, n.protect.Tasks()...)
	tasks = append(tasks, n.repairTasks()...)
	tasks = append(tasks, n.evictTasks()...)
	tasks = append(tasks, n.distance.reach.Tasks()...)
	tasks = append(tasks, n.purgeTasks()...)
	tasks = append(tasks, n.makeReconciler().Task())
	tasks = append(tasks, work.Task{Name: "storage_commitment", Run: n.face.Run, Restart: &work.Restart{}})
	if limit := heapLimit(n.config.Store); limit > 0 {
		tasks = append(tasks, newHeap(limit, n.log).task())
	}
	n.tasks = work.New(n.log, tasks...)
	n.metrics.Tasks(n.tasks.Statuses)
	n.gauges()
	n.layoutGauges()
	n.capacityGauges()
	n.recalledGauges()
	n.relayGauges()
	n.repairGauges()
	n.spreadGauges()
	ctx, quit := context.WithCancel(context.Background())
	n.quit = quit
	n.work.Go(func() error {
		err := n.tasks.Run(ctx)
		if err != nil { // all that may fail for good is what writes
			n.fatal(&exitError{exitDied, err})
		}
		return nil
	})
	n.trail.started()
}

// die ends the process after an error that no acknowledgement may follow: the
// restart proves what was really written (DESIGN §4, Errors).
func (n *node) die(err error) {
	n.log.Error("the node must end", "error", err)
	n.died.Store(true)
	n.fatal(err)
	time.AfterFunc(closeTime, func() { os.Exit(exitDied) }) // should anything hang
}

// wait blocks until the node is told to end or cannot go on, and ends it.
func (n *node) wait() error {
	<-n.ending.Done()
	cause := context.Cause(n.ending)
	if n.died.Load() {
		// Stores are not closed: they could write. The process ends, and with it
		// every association and request, none of which got an answer since.
		return &exitError{exitDied, cause}
	}
	if errors.Is(cause, context.Canceled) {
		cause = nil
		n.log.Info("shutting down")
	}
	return errors.Join(cause, n.stop())
}

// exitError is an error that ends the process with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// stop ends what was started, in reverse: faces first, so that nobody is
// acknowledged any more, then the background work, then the stores.
func (n *node) stop() error {
	n.fatal(context.Canceled) // unless it was told before: from here on faces may end
	errs := []error{n.drain()}
	if n.cut != nil {
		n.cut()
	}
	errs = append(errs, n.slow("faces", n.faces.Wait))
	if n.tasks != nil {
		n.trail.stopped()
		n.quit()
		errs = append(errs, n.work.Wait()) // the group logs by name who is slow
	}
	errs = append(errs, n.slow("reading from afar", n.distance.close), n.slow("shards", n.shards.close))
	if n.network != nil {
		errs = append(errs, n.slow("network", n.network.close))
	}
	if n.archive != nil {
		errs = append(errs, n.slow("archive", n.archive.Close))
	}
	if n.catalog != nil {
		errs = append(errs, n.slow("catalog", n.catalog.Close))
	}
	if n.trail != nil {
		errs = append(errs, n.slow("audit", n.trail.Close))
	}
	if n.keys != nil {
		errs = append(errs, n.keys.Close())
	}
	if n.dir != nil {
		errs = append(errs, n.dir.Close())
	}
	return errors.Join(errs...)
}

// drain lets what is under way on both faces end, and ends by force what has not
// after drainTime. That is no failure: a sender that is cut off in the middle of
// an instance got no success for it, and sends it again.
func (n *node) drain() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var faces errgroup.Group
	if n.dimse != nil {
		faces.Go(func() error {
			return n.slow("dicom", func() error { return n.forced("dicom", n.dimse.Shutdown(ctx)) })
		})
	}
	if n.http != nil {
		faces.Go(func() error {
			return n.slow("web", func() error {
				err := n.http.Shutdown(ctx)
				if err == nil {
					return nil
				}
				last, cancel := context.WithTimeout(context.Background(), closeTime)
				defer cancel()
				return errors.Join(n.forced("web", err), n.http.Close(), n.requests.close(last))
			})
		})
	}
	return faces.Wait()
}

// forced logs that a face was ended by force at the end of its time.
func (n *node) forced(face string, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	n.log.Warn("clients that did not end were cut off", "face", face)
	return nil
}

// slow logs by name what takes long to stop.
func (n *node) slow(name string, stop func() error) error {
	timer := time.AfterFunc(closeTime, func() { n.log.Warn("still stopping", "part", name) })
	defer timer.Stop()
	return stop()
}

// ended takes what a face's server returned: a failure unless the node ends.
func (n *node) ended(name string, err error) error {
	select {
	case <-n.ending.Done():
		return nil
	default:
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", name, err)
	n.fatal(err)
	return err
}
