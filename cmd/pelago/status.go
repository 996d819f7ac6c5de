package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"pelago/node/admin"
)

// statusCommand shows a node's state, and that of the network as the node sees it.
type statusCommand struct{ target }

func (s *statusCommand) Run(e *env) error {
	c, err := s.node(e)
	if err != nil {
		return err
	}
	var st admin.Status
	if err := c.get(e.ctx, "/api/status", &st); err != nil {
		return err
	}
	if s.JSON {
		return printJSON(e.stdout, st)
	}
	return printStatus(e.stdout, st)
}

// printStatus prints the status for people.
func printStatus(w io.Writer, st admin.Status) error {
	if err := table(w, []string{"SITE", st.Site}, statusRows(st)); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printSites(w, st.Sites); err != nil {
		return err
	}
	if rows := shardRows(st.Sites); st.LayoutVersion > 0 && len(rows) > 0 {
		fmt.Fprintln(w)
		if err := table(w, []string{"SHARDS AT", "OWED", "HELD", "LACKING", "ROOM", "PLEDGED"}, rows); err != nil {
			return err
		}
	}
	if len(st.Transfers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, t := range st.Transfers {
		way := "to"
		if t.Incoming {
			way = "from"
		}
		rows = append(rows, []string{t.Kind, way + " " + nameOf(t.Node, st.Sites), fmt.Sprint(t.Calls), size(t.Bytes), seconds(t.Seconds)})
	}
	return table(w, []string{"TRANSFER", "WITH", "CALLS", "MOVED", "FOR"}, rows)
}

// statusRows is what is known of the node itself.
func statusRows(st admin.Status) [][]string {
	leader := "none is known"
	if st.Leader != "" {
		leader = nameOf(st.Leader, st.Sites)
	}
	rows := [][]string{
		{"node", st.Node}, {"network", st.Network}, {"leader", leader}, {"version", st.Version},
		{"up", (time.Duration(st.UptimeSeconds) * time.Second).String()},
		{"studies", fmt.Sprint(st.Studies)}, {"series", fmt.Sprint(st.Series)}, {"instances", fmt.Sprint(st.Instances)},
		{"staleness", seconds(st.StalenessSeconds)},
		{"entries applied", fmt.Sprintf("%d of %d", st.AppliedIndex, max(st.CommitIndex, st.AppliedIndex))},
		{"journal pending", fmt.Sprint(st.PendingJournal)},
		{"staging", size(st.StagingBytes)},
		{"at rest", fmt.Sprintf("%s, %s of them copies of others', %s shards", size(st.BulkBytes), size(st.CachedBytes), size(st.HeldBytes))},
		{"free", size(st.FreeBytes)},
		{"quarantined", fmt.Sprint(st.Quarantined)},
		{"commitments pending", fmt.Sprint(st.PendingCommitment)},
		{"repair", repairLine(st.Repair)},
		{"sites that may be lost", fmt.Sprint(st.SurvivesSites)},
	}
	rows = append(rows, layoutRows(st)...)
	if st.Spread.Packs > 0 {
		rows = append(rows, []string{"to be spread", waiting(st.Spread)})
	}
	if st.Refuses != "" {
		rows = append(rows, []string{"refuses images", st.Refuses})
	}
	for _, trouble := range []struct {
		name, text string
		n          int
	}{
		{"study keys", "rotten ranges of one file made up for by the other: look at the disk", st.MendedKeyRanges},
		{"study keys lost", "rotten ranges in both files: see verify", st.DamagedKeyRanges},
		{"journal", "facts refused by the catalogue", int(min(st.RejectedFacts, 1<<31-1))},
	} {
		if trouble.n > 0 {
			rows = append(rows, []string{trouble.name, fmt.Sprintf("%d %s", trouble.n, trouble.text)})
		}
	}
	if st.EpochsLacking > 0 || st.PackingWaits {
		state := fmt.Sprintf("%d of %d here", st.EpochsHeld, st.EpochsHeld+st.EpochsLacking)
		if st.PackingWaits {
			state += "; packing waits for them"
		}
		rows = append(rows, []string{"epoch keys", state})
	}
	for _, task := range st.Tasks {
		if task.Error != "" {
			rows = append(rows, []string{"task " + task.Name, task.State + ", at " + task.ErrorAt + ": " + task.Error})
		}
	}
	return rows
}

// layoutRows is where shards belong; nothing in a network that has no layout.
func layoutRows(st admin.Status) [][]string {
	l := st.Layout
	if st.LayoutVersion == 0 {
		return nil
	}
	version := fmt.Sprint(st.LayoutVersion)
	if l.From > 0 {
		version = fmt.Sprintf("%d, being changed to from %d", st.LayoutVersion, l.From)
	}
	rows := [][]string{
		{"layout", version}, {"stripes", fmt.Sprintf("%s; %d sites hold shards", codeText(l.Code), l.Code.Sites)},
		{"room for shards", fmt.Sprintf("%s of %s pledged", size(l.CapacityBytes), size(l.PledgedBytes))},
	}
	if l.RebuildableBytes > 0 {
		rows = append(rows, []string{"room with a site lost", size(l.RebuildableBytes)})
	}
	for _, node := range l.Waiting {
		rows = append(rows, []string{"layout waits for", nameOf(node, st.Sites)})
	}
	for _, limit := range l.Limits {
		rows = append(rows, []string{"limit", limit})
	}
	return append(rows, shortageRows(l.Shortages)...)
}

// shortagesShown are named one by one.
const shortagesShown = 3

// shortageRows say for which sites' shards there is no place.
func shortageRows(all []admin.Shortage) (rows [][]string) {
	for _, s := range all[:min(len(all), shortagesShown)] {
		rows = append(rows, []string{"short of room", fmt.Sprintf("if %s is lost, %s of its shards have no place", s.Site, size(s.Bytes))})
	}
	if more := len(all) - shortagesShown; more > 0 {
		rows = append(rows, []string{"short of room", fmt.Sprintf("and for %d sites more", more)})
	}
	return rows
}

// repairLine is how far repair is.
func repairLine(r admin.Repair) string {
	line := fmt.Sprintf("%d queued, %d running", r.Queued, r.Running)
	if r.Queued+r.Running > 0 {
		line += fmt.Sprintf(", %s/s", size(r.BytesPerSecond))
		if r.LeftSeconds >= 0 {
			line += ", " + (time.Duration(r.LeftSeconds) * time.Second).String() + " left"
		}
	}
	if r.Lost > 0 {
		line += fmt.Sprintf("; of %d nobody has enough shards", r.Lost)
	}
	if r.Full {
		line += "; there is no room here"
	}
	return line
}

// waiting is what waits to be at other sites.
func waiting(s admin.Spread) string {
	return fmt.Sprintf("%d packs, %s, for up to %s", s.Packs, size(s.Bytes), seconds(s.OldestSeconds))
}

// printSites prints sites and their nodes.
func printSites(w io.Writer, sites []admin.Site) error {
	var rows [][]string
	for _, s := range sites {
		for _, n := range s.Nodes {
			disk := "not known"
			if n.CapacityBytes > 0 {
				disk = size(n.UsedBytes) + " of " + size(n.CapacityBytes)
			}
			rows = append(rows, []string{s.Name, n.ID, n.Address, string(n.State), rolesOf(n), entries(n), seconds(n.LagSeconds), disk})
		}
	}
	return table(w, []string{"SITE", "NODE", "ADDRESS", "STATE", "ROLE", "LAG", "BEHIND", "DISK"}, rows)
}

// shardRows are the sites' shards; none of sites that neither owe nor pledge any.
func shardRows(sites []admin.Site) (rows [][]string) {
	known := func(n int64) string {
		if n < 0 {
			return "not known"
		}
		return size(n)
	}
	for _, s := range sites {
		pledged := int64(0)
		for _, n := range s.Nodes {
			if n.State != admin.Removed {
				pledged += n.PledgeBytes
			}
		}
		if pledged > 0 || s.OwedBytes > 0 {
			rows = append(rows, []string{s.Name, known(s.OwedBytes), known(s.HeldBytes), known(s.LackingBytes), known(s.RoomBytes), size(pledged)})
		}
	}
	return rows
}

// rolesOf is what a node does for the others.
func rolesOf(n admin.Node) string {
	var words []string
	for _, role := range []struct {
		has  bool
		name string
	}{{n.Self, "this"}, {n.Leader, "leader"}, {n.Voter && !n.Leader, "voter"}, {n.Witness, "witness"}, {n.Signs, "signs"}, {n.Barred, "barred"}, {n.Lost, "lost"}} {
		if role.has {
			words = append(words, role.name)
		}
	}
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ",")
}

// entries is a node's lag in entries.
func entries(n admin.Node) string {
	if n.LagEntries < 0 {
		return "not known"
	}
	return fmt.Sprint(n.LagEntries)
}

// seconds prints a time in seconds; negative ones are not known.
func seconds(s float64) string {
	switch {
	case s < 0:
		return "not known"
	case s < 10:
		return fmt.Sprintf("%.1fs", s)
	}
	return (time.Duration(s) * time.Second).String()
}

// nameOf is a node's site, with its id where the site has more of them.
func nameOf(node string, sites []admin.Site) string {
	for _, s := range sites {
		if !slices.ContainsFunc(s.Nodes, func(n admin.Node) bool { return n.ID == node }) {
			continue
		}
		if len(s.Nodes) == 1 {
			return s.Name
		}
		return s.Name + ", node " + node
	}
	return node
}
