package authority

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

const (
	papersFile  = "network"
	papersMagic = "PelNetw\x01"
)

// Papers are what a node keeps of its membership, in keys/network.
type Papers struct {
	Root        []byte // DER
	Certificate []byte // its own, DER
	Key         []byte // the authority's key, sealed to this node; empty where it may not sign
}

// Save writes the papers in one durable step over those from before.
func (p Papers) Save(fs vfs.FS, dir string) error {
	var payload []byte
	for _, field := range [][]byte{p.Root, p.Certificate, p.Key} {
		if len(field) > maxCertificate {
			return fault.New(fault.Invalid, "authority: papers of %d bytes", len(field))
		}
		payload = append(binary.BigEndian.AppendUint16(payload, uint16(len(field))), field...)
	}
	return identity.WriteFile(fs, dir, papersFile, identity.Frame(papersMagic, payload))
}

// LoadPapers reads the papers of the key folder dir: fault.NotFound if the node
// belongs to no network yet, fault.Corrupt if they are rotten, fault.Unsupported
// if a newer version wrote them.
func LoadPapers(fs vfs.FS, dir string) (Papers, error) {
	payload, err := identity.ReadFramed(fs, fs.PathJoin(dir, papersFile), papersMagic)
	if errors.Is(err, os.ErrNotExist) {
		return Papers{}, fault.New(fault.NotFound, "authority: the node belongs to no network: %w", err)
	}
	if err != nil {
		return Papers{}, err
	}
	return parsePapers(payload)
}

// The types of the PEM blocks that [Papers.Export] writes.
const (
	blockRoot = "CERTIFICATE"
	blockKey  = "PELAGO SEALED AUTHORITY KEY"
)

// Export is what the papers have of the authority, for safekeeping outside the
// node: the root certificate, and where this node may sign the authority's key,
// which stays sealed to this node. PEM (RFC 7468); the second block has the headers
// Network, the root's hash, and Node.
func (p Papers) Export() ([]byte, error) {
	root, err := ParseRoot(p.Root)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: blockRoot, Bytes: p.Root})
	if len(p.Key) == 0 {
		return text, nil
	}
	cert, err := parseCertificate(p.Certificate)
	if err != nil {
		return nil, err
	}
	name, err := root.issued(cert) // whether it has expired does not matter
	if err != nil {
		return nil, err
	}
	hash := root.Hash()
	return append(text, pem.EncodeToMemory(&pem.Block{
		Type: blockKey, Headers: map[string]string{"Network": hex.EncodeToString(hash[:]), "Node": name.Node}, Bytes: p.Key,
	})...), nil
}

func parsePapers(b []byte) (Papers, error) {
	var p Papers
	for _, field := range []*[]byte{&p.Root, &p.Certificate, &p.Key} {
		if len(b) < 2 || int(binary.BigEndian.Uint16(b)) > len(b)-2 {
			return Papers{}, fault.New(fault.Corrupt, "authority: the papers of the network are cut short")
		}
		end := 2 + int(binary.BigEndian.Uint16(b))
		*field, b = slices.Clone(b[2:end]), b[end:]
	}
	if len(b) != 0 {
		return Papers{}, fault.New(fault.Corrupt, "authority: the papers of the network go on for %d bytes", len(b))
	}
	return p, nil
}
