package main

import (
	"context"
	"encoding/hex"
	"time"

	"pelago/node/admin"
	"pelago/node/archive"
)

// status answers GET /api/status.
func (n *node) status(context.Context) (*admin.Status, error) {
	usage, err := n.archive.Usage()
	if err != nil {
		return nil, err
	}
	quarantined, err := n.archive.Quarantined()
	if err != nil {
		return nil, err
	}
	totals, journal := n.archive.Catalog().Totals(), n.archive.Journal()
	from := n.vantage()
	hash, index := n.catalog.StateHash()
	protectedStudies, _ := n.protect.Studies() // none before they were counted
	epochs, placed := n.network.keeper.State(), n.placement.Status()
	members, where := n.members(usage, from), layoutStatus(placed)
	where.Shortages = shortages(n.capacity.Report(), members)
	if r := n.capacity.Report(); r != nil {
		where.RebuildableBytes = r.Fits
	}
	return &admin.Status{
		Network: n.network.membership.Name().Network, Site: n.config.Site, Node: n.id, Leader: from.Leader,
		AppliedIndex: from.AppliedIndex, CommitIndex: from.CommitIndex, StalenessSeconds: from.StalenessSeconds(),
		StateIndex: index, StateHash: hex.EncodeToString(hash[:]),
		Sites:    admin.SitesOf(members, from),
		Patients: totals.Patients, Studies: totals.Studies, Series: totals.Series, Instances: totals.Instances,
		ProtectedStudies: protectedStudies, Repair: n.repairStatus(), Refuses: whyClosed(n.network.takes()),
		LayoutVersion: placed.Version, SurvivesSites: placed.Survives, Layout: where,
		Spread:         n.spreadStatus(),
		PendingJournal: journal.Pending(), RejectedFacts: journal.Rejected(),
		Version: version, UptimeSeconds: int64(time.Since(n.began).Seconds()), AE: n.config.DICOM.AE,
		StagingBytes: usage.Staging, BulkBytes: usage.Bulk, HotBytes: usage.Hot, CachedBytes: usage.Cached, HeldBytes: usage.Held, FreeBytes: usage.Free,
		Transfers:   admin.TransfersOf(n.network.watch.transfers.Running(), time.Now()),
		Quarantined: quarantined, PendingCommitment: n.face.Pending(),
		EpochsHeld: epochs.Held, EpochsLacking: epochs.Lacking, PackingWaits: n.archive.PackingWaits(),
		MendedKeyRanges: n.keys.Mended(), DamagedKeyRanges: n.keys.Damaged(),
		Tasks: admin.TasksOf(n.tasks.Statuses()),
	}, nil
}

func (n *node) backup(ctx context.Context, dir string, progress func(done, total uint64)) error {
	return n.archive.Backup(ctx, dir, progress)
}

// gauges registers what is read when Prometheus asks.
func (n *node) gauges() {
	m := n.metrics
	usage := func(read func(archive.Usage) int64) func() float64 {
		return func() float64 {
			u, err := n.archive.Usage()
			if err != nil {
				return -1
			}
			return float64(read(u))
		}
	}
	m.Gauge("pelago_staging_bytes", "Bytes that arrivals occupy before they are packed.", usage(func(u archive.Usage) int64 { return u.Staging }))
	m.Gauge("pelago_bulk_bytes", "Bytes of packs at rest.", usage(func(u archive.Usage) int64 { return u.Bulk }))
	m.Gauge("pelago_free_bytes", "Bytes free on the data directory's file system.", usage(func(u archive.Usage) int64 { return u.Free }))
	m.Gauge("pelago_studies", "Studies in the catalogue.", func() float64 { return float64(n.archive.Catalog().Totals().Studies) })
	m.Gauge("pelago_instances", "Instances in the catalogue.", func() float64 { return float64(n.archive.Catalog().Totals().Instances) })
	m.Gauge("pelago_journal_pending", "Facts not yet in the catalogue.", func() float64 { return float64(n.archive.Journal().Pending()) })
	m.Counter("pelago_log_entries_total", "Entries of the log that the catalogue has applied since the start.", func() float64 { count, _ := n.archive.Catalog().Entries(); return float64(count) })
	m.Counter("pelago_log_entry_bytes_total", "Their bytes.", func() float64 { _, bytes := n.archive.Catalog().Entries(); return float64(bytes) })
	m.Counter("pelago_peer_received_bytes_total", "Bytes of images and of the catalogue that came from other nodes.", func() float64 { in, _ := n.network.watch.transfers.Moved(); return float64(in) })
	m.Counter("pelago_peer_sent_bytes_total", "Bytes of images and of the catalogue that went to other nodes.", func() float64 { _, out := n.network.watch.transfers.Moved(); return float64(out) })
	m.Counter("pelago_journal_rejected_total", "Facts that the catalogue refused: their series are not found as they are.", func() float64 { return float64(n.archive.Journal().Rejected()) })
	m.Gauge("pelago_associations", "Associations that are open.", func() float64 { return float64(n.dimse.Associations()) })
	m.Gauge("pelago_commitments_pending", "Storage commitment requests without a delivered result.", func() float64 { return float64(n.face.Pending()) })
	m.Gauge("pelago_epochs_held", "Epoch keys of the network that this node holds.", func() float64 { return float64(n.network.keeper.State().Held) })
	m.Gauge("pelago_epochs_lacking", "Epoch keys of the network that this node should hold and does not yet.", func() float64 { return float64(n.network.keeper.State().Lacking) })
	m.Gauge("pelago_packing_waits", "1 while what is stored stays in staging for want of an epoch key.", func() float64 {
		if n.archive.PackingWaits() {
			return 1
		}
		return 0
	})
	n.shards.gauges(n)
	n.evictGauges()
	copies := n.distance.copies
	m.Gauge("pelago_cached_bytes", "Bytes of copies of other nodes' packs.", func() float64 { return float64(copies.Bytes()) })
	m.Gauge("pelago_cached_limit_bytes", "Bytes that copies of other nodes' packs may have.", func() float64 { return float64(copies.Limit()) })
	s, cache, read := n.archive.Counters(), copies.Counters(), n.distance.reach.Counters()
	for _, c := range []struct {
		name, help string
		read       func() uint64
	}{
		{"pelago_stored_total", "Instances stored.", s.Stored.Load},
		{"pelago_stored_same_total", "Arrivals that were here already.", s.Same.Load},
		{"pelago_renditions_total", "Arrivals that decode to what was here.", s.Renditions.Load},
		{"pelago_quarantined_total", "Arrivals quarantined.", s.Quarantined.Load},
		{"pelago_refused_total", "Arrivals refused.", s.Refused.Load},
		{"pelago_received_bytes_total", "Bytes of data sets stored.", s.BytesIn.Load},
		{"pelago_packed_instances_total", "Instances packed.", s.PackedInstances.Load},
		{"pelago_packed_raw_bytes_total", "Their bytes as received.", s.PackedRaw.Load},
		{"pelago_packed_bytes_total", "Their bytes at rest.", s.PackedBytes.Load},
		{"pelago_pack_errors_total", "Failed attempts at packing.", s.PackErrors.Load},
		{"pelago_packs_lost_total", "Packs lost to rotten or missing tables, found since the start.", s.PacksLost.Load},
		{"pelago_cached_kept_total", "Packs of other nodes of which a copy was kept.", cache.Kept.Load},
		{"pelago_cached_evicted_total", "Copies that made room for others.", cache.Evicted.Load},
		{"pelago_cached_dropped_total", "Copies that were rotten, or of what was deleted.", cache.Dropped.Load},
		{"pelago_cached_hits_total", "Reads of other nodes' packs that copies answered.", cache.Hits.Load},
		{"pelago_cached_misses_total", "Reads of other nodes' packs that copies did not answer.", cache.Misses.Load},
		{"pelago_lost_read_elsewhere_total", "Instances that are lost here and were read from other nodes.", read.Elsewhere.Load},
		{"pelago_lost_mended_total", "Instances that were lost here and were fetched back from other nodes.", read.Mended.Load},
		{"pelago_headers_mended_total", "Header records that store/ had lost, made anew from the instances' bytes.", s.HeadersMended.Load},
	} {
		m.Counter(c.name, c.help, func() float64 { return float64(c.read()) })
	}
}
