package authority

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"pelago/cluster/fault"
)

const (
	scheme     = "pelago"
	maxNetwork = 63 // a DNS label
	maxSite    = 64 // characters; as node/config has it
	idLength   = 32 // characters of a node's id
)

// Name says who a node is: its certificate's only subject alternative name is
// pelago://NETWORK/SITE/NODE.
type Name struct {
	Network string // a DNS label in lower case
	Site    string // 1 to 64 printable characters, no slash or backslash
	Node    string // the node's id: identity.IDOf its key
}

// URI returns the name as it stands in certificates, the site percent-encoded.
func (n Name) URI() *url.URL {
	path := "/" + n.Site + "/" + n.Node
	return &url.URL{Scheme: scheme, Host: n.Network, Path: path}
}

// String returns the URI.
func (n Name) String() string { return n.URI().String() }

// Check reports what is wrong with a name: fault.Invalid.
func (n Name) Check() error {
	switch {
	case !validNetwork(n.Network):
		return fault.New(fault.Invalid, "authority: a network's name is 1 to %d of a–z, 0–9 and inner hyphens", maxNetwork)
	case !validSite(n.Site):
		return fault.New(fault.Invalid, "authority: a site's name is 1 to %d printable characters without slash and backslash", maxSite)
	case !validNode(n.Node):
		return fault.New(fault.Invalid, "authority: a node's id is %d characters of base32", idLength)
	}
	return nil
}

// ParseName reads a name from its URI, of which there is one spelling only;
// fault.Invalid for anything else.
func ParseName(u *url.URL) (Name, error) {
	parts := strings.Split(u.Path, "/")
	if u.Scheme != scheme || len(parts) != 3 || parts[0] != "" {
		return Name{}, fault.New(fault.Invalid, "authority: not a node's URI")
	}
	n := Name{Network: u.Host, Site: parts[1], Node: parts[2]}
	if err := n.Check(); err != nil {
		return Name{}, err
	}
	if n.String() != u.String() {
		return Name{}, fault.New(fault.Invalid, "authority: a node's URI in another spelling")
	}
	return n, nil
}

func validNetwork(s string) bool {
	if s == "" || len(s) > maxNetwork || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func validSite(s string) bool {
	if s == "" || s == "." || s == ".." || len(s) > maxSite*utf8.UTFMax || !utf8.ValidString(s) ||
		utf8.RuneCountInString(s) > maxSite || strings.TrimSpace(s) != s {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r == '/' || r == '\\' {
			return false
		}
	}
	return true
}

func validNode(s string) bool {
	if len(s) != idLength {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
