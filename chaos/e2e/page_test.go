package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pelago/chaos/browser"
	"pelago/chaos/fleet"
	wan "pelago/chaos/world"
	"pelago/dimse/dimsetest"
	"pelago/node/admin"
)

// pageTime is how long a page may take to show what it should: several of the
// two seconds between its questions, on a busy machine.
const pageTime = time.Minute

// openPage opens a page in a browser of its own.
func openPage(t *testing.T, url string) (context.Context, *browser.Page) {
	t.Helper()
	program, err := browser.Find()
	dimsetest.Need(t, err == nil, "no Chromium is installed")
	b, err := browser.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*pageTime)
	t.Cleanup(cancel)
	p, err := b.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return ctx, p
}

// shows waits until an element's text holds some words.
func shows(ctx context.Context, t *testing.T, p *browser.Page, element, words string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, pageTime)
	defer cancel()
	if err := p.Wait(ctx, fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", element, words)); err != nil {
		var text string
		_ = p.Eval(context.WithoutCancel(ctx), "document.body.innerText", &text) // only to tell
		t.Fatalf("%v\n%s", err, text)
	}
}

// untroubled fails if anything went wrong on the page.
func untroubled(t *testing.T, p *browser.Page) {
	t.Helper()
	for _, trouble := range p.Troubles() {
		t.Errorf("the page: %s", trouble)
	}
}

// shoot keeps a screenshot where PELAGO_SCREENSHOTS says, if it does.
func shoot(ctx context.Context, t *testing.T, p *browser.Page, name string) {
	t.Helper()
	folder := os.Getenv("PELAGO_SCREENSHOTS")
	if folder == "" {
		return
	}
	picture, err := p.Screenshot(ctx)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestThePageShowsARunningNodeAndThatItWentAway(t *testing.T) {
	n := start(t)
	ctx, p := openPage(t, n.HTTP()+"/")
	shows(ctx, t, p, "#health", "All is well.")
	shows(ctx, t, p, "#leader", "this node")
	shows(ctx, t, p, "#sites tbody", "alive")
	n.cstore(world(dimsetest.World{Seed: 5, Patients: 3, PerSeries: 2}))
	shows(ctx, t, p, "#cards", "Studies\n3")
	shows(ctx, t, p, "#cards", "Instances\n6")
	untroubled(t, p)
	shoot(ctx, t, p, "one-node")
	n.stop()
	shows(ctx, t, p, "#health", "does not answer")
	shows(ctx, t, p, "#cards", "Studies\n3") // what was known stays
}

func TestThePageShowsTheOtherSites(t *testing.T) {
	f, err := fleet.Start(t.Context(), fleet.Options{
		Binary: pelagoBinary, Dir: t.TempDir(), Sites: []wan.Site{"north", "south"},
		World: wan.Options{Link: wan.Both(20*time.Millisecond, 100*wan.Mbps)}, Env: []string{"PELAGO_STORE_AHEAD=0"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	north, south := &node{f.Nodes[0].Node, t}, f.Nodes[1]
	ctx, p := openPage(t, south.HTTP()+"/")
	shows(ctx, t, p, "#cards", "2 of 2")
	shows(ctx, t, p, "#leader", "north")
	north.cstore(world(dimsetest.World{Seed: 6, Patients: 3, PerSeries: 2}))
	shows(ctx, t, p, "#cards", "Studies\n3")
	untroubled(t, p)
	if f.World.Strangers() > 0 {
		t.Error("somebody dialled from nowhere")
	}
}

// manySites is the status of a network in which something is amiss.
func manySites() *admin.Status {
	members := []admin.Member{
		{Node: "n7kq2vd5ahp3mzxw", Site: "Sankt Anna", Address: "10.1.0.5:7700", Self: true, Voter: true, Drained: true, Capacity: 8e12, Used: 5.2e12, AppliedIndex: 48_211},
		{Node: "b2xw6tfj4r9cqe8s", Site: "Sankt Anna", Address: "10.1.0.6:7700", Alive: true, Capacity: 8e12, Used: 4.1e12, AppliedIndex: 48_211, RoundTrip: 300 * time.Microsecond},
		{Node: "c5mdyh7u3kzn2vqa", Site: "Riverside General", Address: "pacs.riverside.example:7700", Alive: true, Voter: true, Capacity: 30e12, Used: 25.5e12, AppliedIndex: 48_211, RoundTrip: 42 * time.Millisecond},
		{Node: "d8pfu3w5xgj6rbte", Site: "Hôpital du Lac", Address: "10.3.0.5:7700", Alive: true, Voter: true, Capacity: 16e12, Used: 15.4e12, AppliedIndex: 48_102, RoundTrip: 81 * time.Millisecond},
		{Node: "e4ryk6z2nqs7hcvd", Site: "Island clinic", Address: "10.4.0.5:7700", Capacity: 2e12, Used: 4e11, AppliedIndex: 47_150},
		{Node: "f9gja5h8twm4pxub", Site: "<img src=x onerror='document.title=1'>", Address: "10.5.0.5:7700", Alive: true, Drained: true},
	}
	from := admin.Vantage{
		Leader: members[2].Node, AppliedIndex: 48_211, CommitIndex: 48_213, Staleness: 400 * time.Millisecond, StalenessKnown: true,
		Behind: func(index uint64) (time.Duration, bool) {
			return time.Duration(48_211-index) * time.Second / 4, index > 48_000
		},
	}
	return &admin.Status{
		Network: "q6t2ahv7", Site: "Sankt Anna", Node: members[0].Node, Leader: from.Leader,
		AppliedIndex: from.AppliedIndex, CommitIndex: from.CommitIndex, StalenessSeconds: from.StalenessSeconds(),
		Sites: admin.SitesOf(members, from), Patients: 310_422, Studies: 1_204_551, Series: 5_910_238, Instances: 402_118_907,
		ProtectedStudies: 1_204_498, PendingJournal: 12, SurvivesSites: 2, Repair: admin.Repair{Queued: 41, Running: 2},
		Refuses: "this node is drained: it takes nothing in", Version: "v0.3.0", UptimeSeconds: 1_209_600, AE: "PELAGO", StagingBytes: 1_800_000_000, BulkBytes: 5_198_200_000_000,
		HotBytes: 4_700_000_000_000, CachedBytes: 498_200_000_000, FreeBytes: 2_800_000_000_000, Quarantined: 3, PendingCommitment: 7,
		Transfers: []admin.Transfer{
			{Kind: "images", Incoming: true, Node: members[2].Node, Calls: 3, Bytes: 141_000_000, Seconds: 12.4},
			{Kind: "images", Node: members[3].Node, Calls: 1, Bytes: 9_000_000, Seconds: 1.1},
			{Kind: "catalogue", Node: members[5].Node, Bytes: 88_000_000, Seconds: 31},
		},
		Tasks: []admin.Task{
			{Name: "journal", State: "running"}, {Name: "pack", State: "running", Done: 3, Total: 9, LastRun: "2026-11-22T05:00:00Z"},
			{Name: "purge", State: "waiting", LastRun: "2026-11-22T04:12:09Z"},
			{Name: "syslog", State: "backoff", Restarts: 4, Error: "audit.syslog: connection refused", ErrorAt: "2026-11-22T05:01:10Z"},
		},
	}
}

// pageOf serves the page over a status that a test makes up.
func pageOf(t *testing.T, status func() (*admin.Status, error)) string {
	t.Helper()
	guard, err := admin.NewGuard(nil, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(admin.Handler(admin.Options{
		Guard: guard, Status: func(context.Context) (*admin.Status, error) { return status() }, Metrics: http.NotFoundHandler(),
	}))
	t.Cleanup(s.Close)
	return s.URL + "/"
}

// lowContrast finds text whose contrast with what it stands on is below 4.5 to 1
// (WCAG 2.2, 1.4.3).
const lowContrast = `(() => {
  const rgb = s => s.match(/[\d.]+/g).map(Number);
  const linear = c => (c /= 255) <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = c => .2126 * linear(c[0]) + .7152 * linear(c[1]) + .0722 * linear(c[2]);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest('noscript')) continue;
    const style = getComputedStyle(e), ink = rgb(style.color);
    if (ink.length > 3 && ink[3] === 0) continue; // hidden from the eye on purpose
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) found.push(walk.currentNode.data.trim() + ': ' + ratio.toFixed(2));
  }
  return found;
})()`

func TestThePageIsReadableInBothSchemesAndOnATelephone(t *testing.T) {
	ctx, p := openPage(t, pageOf(t, func() (*admin.Status, error) { return manySites(), nil }))
	shows(ctx, t, p, "#sites tbody", "Riverside General")
	if err := p.Eval(ctx, "document.querySelector('details').open = true", nil); err != nil {
		t.Fatal(err)
	}
	for _, look := range []struct {
		name          string
		width, height int
		scheme        string
	}{{"light", 1200, 1400, "light"}, {"dark", 1200, 1400, "dark"}, {"narrow-light", 360, 3000, "light"}, {"narrow-dark", 360, 3000, "dark"}} {
		if err := p.Look(ctx, look.width, look.height, look.scheme); err != nil {
			t.Fatal(err)
		}
		var faint []string
		if err := p.Eval(ctx, lowContrast, &faint); err != nil || len(faint) > 0 {
			t.Errorf("%s: %v, too little contrast: %q", look.name, err, faint)
		}
		var over int
		if err := p.Eval(ctx, "document.scrollingElement.scrollWidth - innerWidth", &over); err != nil || over > 0 {
			t.Errorf("%s: %v, the page is %d pixels too wide", look.name, err, over)
		}
		shoot(ctx, t, p, look.name)
	}
	untroubled(t, p)
}

func TestThePageTellsWhatNeedsAttention(t *testing.T) {
	ctx, p := openPage(t, pageOf(t, func() (*admin.Status, error) {
		s := manySites()
		s.Layout.Shortages = []admin.Shortage{{Site: "Riverside General", Bytes: 3e9}, {Site: "Island clinic", Bytes: 2e9}}
		return s, nil
	}))
	for _, words := range []string{
		"If site Riverside General is lost, 3.0 GB of its shards have no place; nor has everything of 1 other site, each lost alone.",
		"Site Island clinic is not heard.", "43 repairs to do.", "3 instances in quarantine", "Task syslog: audit.syslog: connection refused",
		"Images are refused: this node is drained: it takes nothing in.",
	} {
		shows(ctx, t, p, "#attention-list", words)
	}
	shows(ctx, t, p, "#health", "6 things to look at.")
	shows(ctx, t, p, "#sites tbody", "109 entries\n27 s")
	shows(ctx, t, p, "#sites tbody", "1,061 entries\nnot known")
	shows(ctx, t, p, "#leader", "Riverside General")
	shows(ctx, t, p, "#role", "voter")
	shows(ctx, t, p, "#transfers tbody", "141 MB")
	shows(ctx, t, p, "#cards", "4.7 TB\nof our own, 498 GB of others")
	untroubled(t, p)
}

// What other sites and senders choose (names, errors) is text, whatever it
// looks like; and if it were not, the policy would keep it from running.
func TestThePageRunsNothingButItself(t *testing.T) {
	ctx, p := openPage(t, pageOf(t, func() (*admin.Status, error) { return manySites(), nil }))
	shows(ctx, t, p, "#sites tbody", "<img src=x onerror='document.title=1'>")
	untroubled(t, p)
	for _, attack := range []string{
		`document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))`,
		`document.body.insertAdjacentHTML('beforeend', '<img src="/icon.svg" onload="window.ran = true">')`,
		`document.body.append(Object.assign(document.createElement('script'), {src: 'data:text/javascript,window.ran=true'}))`,
	} {
		if err := p.Eval(ctx, attack, nil); err != nil {
			t.Fatal(err)
		}
	}
	var elsewhere string
	if err := p.Eval(ctx, `fetch('http://127.0.0.2:9/').then(() => 'asked', e => e.constructor.name)`, &elsewhere); err != nil || elsewhere != "TypeError" {
		t.Errorf("another host: %q, %v", elsewhere, err)
	}
	// The page goes on, which shows that time has passed for what could have run.
	if err := p.Eval(ctx, `new Promise(done => setTimeout(done, 300))`, nil); err != nil {
		t.Fatal(err)
	}
	var ran bool
	if err := p.Eval(ctx, "Boolean(window.ran)", &ran); err != nil || ran {
		t.Errorf("what was put into the page ran: %v", err)
	}
	refused := 0
	for _, trouble := range p.Troubles() {
		if strings.Contains(trouble, "Content Security Policy") {
			refused++
		}
	}
	if refused < 4 {
		t.Errorf("the policy refused %d of 4", refused)
	}
}

func TestThePageIsToldToAssistiveTechnology(t *testing.T) {
	ctx, p := openPage(t, pageOf(t, func() (*admin.Status, error) { return manySites(), nil }))
	shows(ctx, t, p, "#sites tbody", "Riverside General")
	told, err := p.Accessible(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"banner", "main", "contentinfo", "status",
		"heading Sites and nodes 5", "heading Transfers in progress 3", "heading Needs attention",
		"columnheader Lag", "columnheader Disk used", "rowheader Riverside General", "rowheader images coming in",
		"meter 25.5 TB of 30.0 TB", "cell 11.4 MB/s",
	} {
		if !slices.Contains(told, want) {
			t.Errorf("nothing is told as %q of %q", want, told)
		}
	}
	if err := p.Press(ctx, "Tab", 9); err != nil {
		t.Fatal(err)
	}
	var focused string
	if err := p.Eval(ctx, "document.activeElement.textContent", &focused); err != nil || focused != "To the sites" {
		t.Errorf("the first stop of the keyboard is %q, %v", focused, err)
	}
}

func TestThePageComesBackAfterAnOutage(t *testing.T) {
	var away atomic.Bool
	ctx, p := openPage(t, pageOf(t, func() (*admin.Status, error) {
		if away.Load() {
			return nil, context.DeadlineExceeded
		}
		s := manySites()
		s.Sites, s.Tasks, s.Transfers, s.Quarantined, s.Repair = s.Sites[:2], []admin.Task{}, []admin.Transfer{}, 0, admin.Repair{}
		s.Refuses = ""
		return s, nil
	}))
	shows(ctx, t, p, "#health", "All is well.")
	away.Store(true)
	shows(ctx, t, p, "#health", "The node does not answer (status")
	away.Store(false)
	shows(ctx, t, p, "#health", "All is well.")
	untroubled500(t, p)
}

// untroubled500 fails if anything but the outage went wrong on the page.
func untroubled500(t *testing.T, p *browser.Page) {
	t.Helper()
	for _, trouble := range p.Troubles() {
		if !strings.Contains(trouble, "the server responded with a status of 5") {
			t.Errorf("the page: %s", trouble)
		}
	}
}
