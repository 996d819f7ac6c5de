package porttest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/authority"
	"pelago/cluster/identity"
	"pelago/cluster/port"
)

// Port is the port number that members listen at.
const Port = 7700

// Cluster is a network of nodes in memory, with an authority and a ledger.
type Cluster struct {
	*Network
	Signer *authority.Signer
	Ledger *authority.Ledger
}

// NewCluster founds a network by name, a year ago.
func NewCluster(t testing.TB, name string) *Cluster {
	t.Helper()
	s, err := authority.Found(name, time.Now().Add(-365*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &Cluster{Network: New(), Signer: s, Ledger: &authority.Ledger{}}
}

// Member is a node of a cluster whose port runs until the test ends.
type Member struct {
	*port.Port
	Host    Host
	Self    *identity.Node
	Address string
	Log     *Lines
	Ended   chan struct{} // closed when the port has
}

// ID is the node's id.
func (m *Member) ID() string { return m.Self.ID() }

// Node makes a node and its certificate at a site.
func (c *Cluster) Node(t testing.TB, site string) (*identity.Node, *authority.Credentials) {
	t.Helper()
	self, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	creds := Credentials(t, c.Signer, self, site)
	c.Ledger.Add(creds.Name())
	return self, creds
}

// Credentials makes those of a node at a site, as an authority gives them out now.
func Credentials(t testing.TB, signer *authority.Signer, self *identity.Node, site string) *authority.Credentials {
	t.Helper()
	creds, err := authority.NewCredentials(signer.Root(), self, issue(t, signer, self, site, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

// Issue makes a certificate (DER) of a node, as of now.
func (c *Cluster) Issue(t testing.TB, self *identity.Node, site string, now time.Time) []byte {
	t.Helper()
	return issue(t, c.Signer, self, site, now)
}

func issue(t testing.TB, signer *authority.Signer, self *identity.Node, site string, now time.Time) []byte {
	t.Helper()
	der, err := authority.NewRequest(self, signer.Root().Network(), site)
	if err != nil {
		t.Fatal(err)
	}
	r, err := authority.ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := signer.Issue(r, now)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// Start makes a node of a site at an address and runs its port; configure, if not
// nil, changes what it runs with. No service listens yet.
func (c *Cluster) Start(t testing.TB, ip, site string, configure func(*port.Config)) *Member {
	t.Helper()
	self, creds := c.Node(t, site)
	m := &Member{Host: c.Host(ip), Self: self, Log: &Lines{}, Ended: make(chan struct{})}
	config := port.Config{Credentials: creds, Revoked: c.Ledger.Revoked, Dial: m.Host.Dial, Log: slog.New(slog.NewTextHandler(m.Log, nil))}
	if configure != nil {
		configure(&config)
	}
	m.Port = port.New(config)
	l, err := m.Host.Listen(Port)
	if err != nil {
		t.Fatal(err)
	}
	m.Address = l.Addr().String()
	go func() {
		defer close(m.Ended)
		if err := m.Run(t.Context(), l); err != nil {
			t.Errorf("port of %s: %v", ip, err)
		}
	}()
	t.Cleanup(func() { <-m.Ended })
	return m
}

// Lines are the lines of a log.
type Lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write appends to the log.
func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// Take returns the lines since the last call.
func (l *Lines) Take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for line := range strings.Lines(l.buf.String()) {
		all = append(all, strings.TrimSpace(line))
	}
	l.buf.Reset()
	return all
}

// Count returns how often a text stands in the lines since the last call of Take.
func (l *Lines) Count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}
