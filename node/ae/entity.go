package ae

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse"
	"pelago/dimse/dicom"
)

// Rights are what an AE may ask for.
type Rights struct {
	Echo     bool `json:"echo"`
	Store    bool `json:"store"` // storage commitment included
	Find     bool `json:"find"`
	Retrieve bool `json:"retrieve"`
}

// AllRights are the rights of an AE that is registered without restrictions.
var AllRights = Rights{Echo: true, Store: true, Find: true, Retrieve: true}

// AE is a registered application entity.
type AE struct {
	Title string `json:"title"`
	// Hosts are addresses, networks (10.1.0.0/16) or names that the AE calls
	// from. The first that is no network is where we call it.
	Hosts []string `json:"hosts"`
	Port  uint16   `json:"port"` // where it listens; 0: it does not
	TLS   bool     `json:"tls"`  // it is called, and must call, over DICOM TLS
	// Certificate, when set, is the common name that its client certificate must
	// carry.
	Certificate string `json:"certificate,omitempty"`
	Rights      Rights `json:"rights"`
	// Issuer qualifies the Patient IDs that it sends and asks for without an
	// issuer; Charset decodes its data sets that name none.
	Issuer string `json:"issuer,omitempty"`
	// Alias is the title by which other sites name it as a Move Destination, unique
	// in the network; "" when they cannot.
	Alias   string        `json:"alias,omitempty"`
	Charset string        `json:"charset,omitempty"`
	Idle    time.Duration `json:"idle,omitempty"`
}

// maxHosts bounds the hosts of an AE: names among them are looked up when it
// calls.
const maxHosts = 64

// isHostName tells names that a resolver may know from misspelled addresses and
// addresses with a port: labels of letters, digits, hyphens and underscores, 253
// characters in all, of which the last label is not a number (RFC 1123 2.1).
func isHostName(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return false
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c < 0x80 {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

// check reports what is wrong with a record.
func (ae AE) check() error {
	if !dimse.IsTitle(ae.Title) {
		return fault.New(fault.Invalid, "%q is no application entity title: 1 to 16 printable characters", ae.Title)
	}
	if ae.Alias != "" && !dimse.IsTitle(ae.Alias) {
		return fault.New(fault.Invalid, "AE %s: alias %q is no application entity title: 1 to 16 printable characters", ae.Title, ae.Alias)
	}
	if len(ae.Hosts) == 0 || len(ae.Hosts) > maxHosts {
		return fault.New(fault.Invalid, "AE %s: 1 to %d hosts or networks are needed", ae.Title, maxHosts)
	}
	for _, host := range ae.Hosts {
		if strings.Contains(host, "/") {
			if _, err := netip.ParsePrefix(host); err != nil {
				return fault.New(fault.Invalid, "AE %s: %w", ae.Title, err)
			}
			continue
		}
		if _, err := netip.ParseAddr(host); err != nil && !isHostName(host) {
			return fault.New(fault.Invalid, "AE %s: %q is no address, network or host name", ae.Title, host)
		}
	}
	if ae.Port != 0 && ae.address() == "" {
		return fault.New(fault.Invalid, "AE %s listens on a port, but of its hosts none can be called: all are networks", ae.Title)
	}
	if ae.Certificate != "" && !ae.TLS {
		return fault.New(fault.Invalid, "AE %s: a certificate is checked over TLS only", ae.Title)
	}
	if ae.Charset != "" {
		if _, err := dicom.NewCharset(strings.Split(ae.Charset, "\\")); err != nil {
			return fault.New(fault.Invalid, "AE %s: %w", ae.Title, err)
		}
	}
	if ae.Idle < 0 {
		return fault.New(fault.Invalid, "AE %s: a negative idle time", ae.Title)
	}
	return nil
}

// address is where the AE is called; "" when it does not listen.
func (ae AE) address() string {
	if ae.Port == 0 {
		return ""
	}
	for _, host := range ae.Hosts {
		if !strings.Contains(host, "/") {
			return net.JoinHostPort(host, strconv.Itoa(int(ae.Port)))
		}
	}
	return ""
}

// lookupTime bounds the look-up of an AE's names: a name server that is down
// must not hold associations up.
const lookupTime = 3 * time.Second

// callsFrom reports whether an address belongs to the AE's hosts. Names are
// looked up, after everything that needs no look-up.
func (ae AE) callsFrom(ctx context.Context, ip netip.Addr, lookup func(context.Context, string) ([]netip.Addr, error)) bool {
	ip = ip.Unmap()
	var names []string
	for _, host := range ae.Hosts {
		if prefix, err := netip.ParsePrefix(host); err == nil {
			if prefix.Contains(ip) {
				return true
			}
		} else if one, err := netip.ParseAddr(host); err == nil {
			if one.Unmap() == ip {
				return true
			}
		} else {
			names = append(names, host)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	for _, name := range names {
		addresses, err := lookup(ctx, name)
		if err != nil {
			continue // an unknown name matches nobody
		}
		for _, a := range addresses {
			if a.Unmap() == ip {
				return true
			}
		}
	}
	return false
}

// secured checks what the registry demands of the connection.
func (ae AE) secured(state *tls.ConnectionState) error {
	if !ae.TLS {
		return nil
	}
	if state == nil {
		return fault.New(fault.Denied, "AE %s must use DICOM TLS", ae.Title)
	}
	if ae.Certificate == "" {
		return nil
	}
	if len(state.PeerCertificates) == 0 || state.PeerCertificates[0].Subject.CommonName != ae.Certificate {
		return fault.New(fault.Denied, "AE %s has another client certificate than the registered one", ae.Title)
	}
	return nil
}
