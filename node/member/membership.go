package member

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"pelago/cluster/authority"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

// Membership is what makes a node a member: its papers, on disk and in use.
type Membership struct {
	Self        *identity.Node
	Credentials *authority.Credentials
	// Hints are the members as the node that let this one in knew them; empty at
	// the node that founded the network.
	Hints []Hint

	fs  vfs.FS
	dir string

	mu     sync.Mutex // held while papers are written, which is rare
	papers authority.Papers
}

// Hint is where a member was when this node joined.
type Hint struct {
	Node    string `json:"node"`
	Site    string `json:"site"`
	Address string `json:"address"`
	Revoked bool   `json:"revoked,omitempty"`
}

const (
	hintsFile  = "peers"
	hintsMagic = "PelPeer\x01"
	// maxHints bounds the members that a node is told of: a network of some
	// hundred sites, and a file that identity reads.
	maxHints = 2048
)

// Open reads the papers of the key folder dir: fault.NotFound if the node belongs
// to no network yet.
func Open(fs vfs.FS, dir string, self *identity.Node) (*Membership, error) {
	papers, err := authority.LoadPapers(fs, dir)
	if err != nil {
		return nil, err
	}
	root, err := authority.ParseRoot(papers.Root)
	if err != nil {
		return nil, err
	}
	credentials, err := authority.NewCredentials(root, self, papers.Certificate)
	if err != nil {
		return nil, err
	}
	hints, err := loadHints(fs, dir)
	if err != nil {
		return nil, err
	}
	return &Membership{Self: self, Credentials: credentials, Hints: hints, fs: fs, dir: dir, papers: papers}, nil
}

// Found makes this node the first of a new network, and returns its membership,
// which is durable, and so is the network's first epoch key, which a witness does
// not make. An empty name makes one up. fault.Invalid for names that cannot stand
// in a certificate.
func Found(fs vfs.FS, dir string, self *identity.Node, network, site string, at authority.Place) (*Membership, error) {
	if network == "" {
		network = newNetworkName()
	}
	now := time.Now()
	signer, err := authority.Found(network, now)
	if err != nil {
		return nil, err
	}
	der, err := authority.NewRequest(self, network, site)
	if err != nil {
		return nil, err
	}
	request, err := authority.ParseRequest(der)
	if err != nil {
		return nil, err
	}
	p := authority.Papers{Root: signer.Root().DER()}
	if p.Certificate, err = signer.Issue(request, now); err != nil {
		return nil, err
	}
	if p.Key, err = signer.SealTo(self.ID(), self.Sealing()); err != nil {
		return nil, err
	}
	// The papers come last: with them the network is founded.
	if !at.Witness {
		if err := self.FirstEpoch(); err != nil {
			return nil, err
		}
	}
	if err := p.Save(fs, dir); err != nil {
		return nil, err
	}
	return Open(fs, dir, self)
}

// newNetworkName makes up a name: nobody has two networks that share 30 random bits.
func newNetworkName() string {
	var b [5]byte
	rand.Read(b[:])
	return "pelago-" + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:6]
}

// Founder reports whether this node founded the network: then it begins the
// network's log, which for all others comes from it.
func (m *Membership) Founder() bool { return len(m.Hints) == 0 }

// Name is who the node is.
func (m *Membership) Name() authority.Name { return m.Credentials.Name() }

// Signer returns the authority if this node may sign: nil if not, fault.Corrupt
// if its key cannot be opened.
func (m *Membership) Signer() (*authority.Signer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.papers.Key) == 0 {
		return nil, nil
	}
	return authority.OpenSigner(m.Credentials.Root(), m.Self, m.papers.Key)
}

// MaySign keeps the authority's key, sealed to this node, from now on. One that
// does not open is fault.Corrupt.
func (m *Membership) MaySign(sealed []byte) error {
	if _, err := authority.OpenSigner(m.Credentials.Root(), m.Self, sealed); err != nil {
		return err
	}
	return m.change(func(p *authority.Papers) { p.Key = sealed })
}

// Renewed keeps a new certificate and uses it from now on.
func (m *Membership) Renewed(certificate []byte) error {
	if err := m.Credentials.Replace(certificate); err != nil {
		return err
	}
	return m.change(func(p *authority.Papers) { p.Certificate = certificate })
}

// change writes changed papers.
func (m *Membership) change(f func(*authority.Papers)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.papers
	f(&p)
	if err := p.Save(m.fs, m.dir); err != nil {
		return err
	}
	m.papers = p
	return nil
}

func saveHints(fs vfs.FS, dir string, hints []Hint) error {
	b, err := json.Marshal(hints)
	if err != nil {
		return err
	}
	return identity.WriteFile(fs, dir, hintsFile, identity.Frame(hintsMagic, b))
}

func loadHints(fs vfs.FS, dir string) ([]Hint, error) {
	b, err := identity.ReadFramed(fs, fs.PathJoin(dir, hintsFile), hintsMagic)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var hints []Hint
	if err := json.Unmarshal(b, &hints); err != nil || len(hints) == 0 || len(hints) > maxHints {
		return nil, fault.New(fault.Corrupt, "member: %s does not parse", hintsFile)
	}
	return hints, nil
}
