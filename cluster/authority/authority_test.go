package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pelago/cluster/fault"
	"pelago/cluster/identity"
)

func newNode(t testing.TB) *identity.Node {
	t.Helper()
	n, err := identity.Open(vfs.NewMem(), "keys")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newNetwork founds a network three years ago, so that its nodes may be older than
// their certificates.
func newNetwork(t testing.TB, name string) *Signer {
	t.Helper()
	s, err := Found(name, time.Now().Add(-3*365*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newRequest(t testing.TB, self *identity.Node, network, site string) Request {
	t.Helper()
	der, err := NewRequest(self, network, site)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func issue(t testing.TB, s *Signer, self *identity.Node, site string, now time.Time) []byte {
	t.Helper()
	der, err := s.Issue(newRequest(t, self, s.root.network, site), now)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const someNode = "abcdefghijklmnopqrstuvwxyz234567"

func TestANameHasOneSpelling(t *testing.T) {
	for _, c := range []struct {
		name Name
		uri  string
	}{
		{Name{"north", "Mercy", someNode}, "pelago://north/Mercy/" + someNode},
		{Name{"n-1", "St. Mary's 2", someNode}, "pelago://n-1/St.%20Mary%27s%202/" + someNode},
		{Name{"n", "Universitätsspital", someNode}, "pelago://n/Universit%C3%A4tsspital/" + someNode},
		{Name{"n", "a?b#c%2F:@&=+;", someNode}, "pelago://n/a%3Fb%23c%252F:@&=+;/" + someNode},
	} {
		// A certificate carries the text: what matters is that it is read back.
		u, err := url.Parse(c.name.String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseName(u); err != nil || got != c.name {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
		if want, _ := url.Parse(c.uri); want.Path != u.Path || want.Host != u.Host {
			t.Errorf("%s, want %s", u, c.uri)
		}
	}
	for name, text := range map[string]string{
		"another scheme":      "https://north/Mercy/" + someNode,
		"a user":              "pelago://u@north/Mercy/" + someNode,
		"a port":              "pelago://north:1/Mercy/" + someNode,
		"a query":             "pelago://north/Mercy/" + someNode + "?x",
		"an empty query":      "pelago://north/Mercy/" + someNode + "?",
		"a fragment":          "pelago://north/Mercy/" + someNode + "#x",
		"an upper-case host":  "pelago://North/Mercy/" + someNode,
		"no network":          "pelago:///Mercy/" + someNode,
		"no site":             "pelago://north//" + someNode,
		"no node":             "pelago://north/Mercy",
		"a short node":        "pelago://north/Mercy/abc",
		"an upper-case node":  "pelago://north/Mercy/" + strings.ToUpper(someNode),
		"another level":       "pelago://north/Mercy/x/" + someNode,
		"a slash in the site": "pelago://north/a%2Fb/" + someNode,
		"a needless escape":   "pelago://north/%4Dercy/" + someNode,
		"a dot":               "pelago://north/../" + someNode,
		"a control character": "pelago://north/a%0Ab/" + someNode,
		"a long site":         "pelago://north/" + strings.Repeat("a", 65) + "/" + someNode,
		"a long network":      "pelago://" + strings.Repeat("a", 64) + "/Mercy/" + someNode,
		"opaque":              "pelago:north",
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := ParseName(u); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestACertificateNamesItsNode(t *testing.T) {
	s, self := newNetwork(t, "north"), newNode(t)
	now := time.Now()
	der := issue(t, s, self, strings.Repeat("é", 64), now)
	want := Name{"north", strings.Repeat("é", 64), self.ID()}
	if got, err := s.Root().Verify(der, now); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	again, err := ParseRoot(s.Root().DER())
	if err != nil || again.Hash() != s.Root().Hash() || again.Network() != "north" {
		t.Errorf("the root read again: %v", err)
	}
}

func TestClocksAreBelievedToADay(t *testing.T) {
	s, self := newNetwork(t, "north"), newNode(t)
	now := time.Now()
	der := issue(t, s, self, "Mercy", now)
	for name, c := range map[string]struct {
		at   time.Duration
		kind fault.Kind
	}{
		"now":                       {0, 0},
		"two days behind":           {-2*Tolerance + time.Minute, 0},
		"more than two days behind": {-2*Tolerance - time.Minute, fault.Denied},
		"at its end":                {Lifetime, 0},
		"a day after its end":       {Lifetime + Tolerance - time.Minute, 0},
		"later":                     {Lifetime + Tolerance + time.Minute, fault.Denied},
	} {
		_, err := s.Root().Verify(der, now.Add(c.at))
		if (c.kind == 0) != (err == nil) || err != nil && !fault.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// forge signs a certificate as the authority would, after a change.
func forge(t *testing.T, s *Signer, public any, change func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: newSerial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, s.root.cert, public, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestOnlyANodesCertificateIsTaken(t *testing.T) {
	s, other, self := newNetwork(t, "north"), newNetwork(t, "north"), newNode(t)
	uri := Name{"north", "Mercy", self.ID()}.URI()
	named := func(c *x509.Certificate) { c.URIs = []*url.URL{uri} }
	if _, err := s.Root().Verify(forge(t, s, self.Public(), named), time.Now()); err != nil {
		t.Fatalf("the certificate that the others differ from: %v", err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(more func(*x509.Certificate)) []byte {
		return forge(t, s, self.Public(), func(c *x509.Certificate) { named(c); more(c) })
	}
	for name, c := range map[string]struct {
		der  []byte
		kind fault.Kind
	}{
		"another network of the same name": {issue(t, other, self, "Mercy", time.Now()), fault.Denied},
		"of another network's name":        {with(func(c *x509.Certificate) { c.URIs = []*url.URL{Name{"south", "Mercy", self.ID()}.URI()} }), fault.Denied},
		"another node's key":               {forge(t, s, newNode(t).Public(), named), fault.Denied},
		"a key of another kind":            {forge(t, s, &ecKey.PublicKey, named), fault.Invalid},
		"an authority":                     {with(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }), fault.Invalid},
		"two names":                        {with(func(c *x509.Certificate) { c.URIs = append(c.URIs, uri) }), fault.Invalid},
		"no name":                          {with(func(c *x509.Certificate) { c.URIs = nil }), fault.Invalid},
		"a host beside":                    {with(func(c *x509.Certificate) { c.DNSNames = []string{"pacs"} }), fault.Invalid},
		"for something else":               {with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }), fault.Denied},
		"an unknown demand": {with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		}), fault.Denied},
		"the root itself": {s.Root().DER(), fault.Invalid},
		"garbage":         {[]byte("garbage"), fault.Invalid},
		"too large":       {make([]byte, maxCertificate+1), fault.Invalid},
	} {
		if got, err := s.Root().Verify(c.der, time.Now()); !fault.Is(err, c.kind) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := ParseRoot(issue(t, s, self, "Mercy", time.Now())); !fault.Is(err, fault.Invalid) {
		t.Errorf("a node's certificate as a root: %v", err)
	}
	if _, err := Found("North", time.Now()); !fault.Is(err, fault.Invalid) {
		t.Errorf("a network in upper case: %v", err)
	}
}

func TestARequestNamesOneNodeAndProvesItsKey(t *testing.T) {
	self := newNode(t)
	name := Name{"north", "Mercy", self.ID()}
	make := func(self *identity.Node, change func(*x509.CertificateRequest)) []byte {
		template := &x509.CertificateRequest{URIs: []*url.URL{name.URI()}}
		change(template)
		der, err := x509.CreateCertificateRequest(rand.Reader, template, self.Signer())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := make(self, func(*x509.CertificateRequest) {})
	if r, err := ParseRequest(good); err != nil || r.Name != name || !r.Public.Equal(self.Public()) {
		t.Fatalf("%+v, %v", r, err)
	}
	unproven := slices.Clone(good)
	unproven[len(unproven)-1] ^= 1
	for name, der := range map[string][]byte{
		"a signature that fails": unproven,
		"another node's name":    make(newNode(t), func(*x509.CertificateRequest) {}),
		"a subject":              make(self, func(r *x509.CertificateRequest) { r.Subject = pkix.Name{CommonName: "root"} }),
		"a host":                 make(self, func(r *x509.CertificateRequest) { r.DNSNames = []string{"pacs"} }),
		"two names":              make(self, func(r *x509.CertificateRequest) { r.URIs = append(r.URIs, name.URI()) }),
		"no name":                make(self, func(r *x509.CertificateRequest) { r.URIs = nil }),
		"too large":              append(slices.Clone(good), make(self, func(r *x509.CertificateRequest) { r.EmailAddresses = []string{strings.Repeat("x", maxCertificate)} })...),
		"bytes after it":         append(slices.Clone(good), 0),
		"nothing":                nil,
	} {
		if r, err := ParseRequest(der); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	for _, n := range []Name{{"North", "Mercy", ""}, {"north", "a/b", ""}, {"north", "", ""}} {
		if _, err := NewRequest(self, n.Network, n.Site); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", n, err)
		}
	}
}

func TestTheAuthorityOpensForItsVoterOnly(t *testing.T) {
	s, a, b := newNetwork(t, "north"), newNode(t), newNode(t)
	sealed, err := s.SealTo(a.ID(), a.Sealing())
	if err != nil {
		t.Fatal(err)
	}
	at, err := OpenSigner(s.Root(), a, sealed)
	if err != nil {
		t.Fatal(err)
	}
	der := issue(t, at, b, "Mercy", time.Now())
	if _, err := s.Root().Verify(der, time.Now()); err != nil || len(sealed) != 80 {
		t.Errorf("what the other voter issues: %v; %d bytes", err, len(sealed))
	}
	toAnother, err := s.SealTo(b.ID(), a.Sealing()) // its key, another one's name
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := identity.SealTo(a.Sealing(), signerInfo(s.root, a.ID()), make([]byte, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	short, err := identity.SealTo(a.Sealing(), signerInfo(s.root, a.ID()), []byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		root   *Root
		self   *identity.Node
		sealed []byte
	}{
		"another node":      {s.Root(), b, sealed},
		"another name":      {s.Root(), a, toAnother},
		"another network":   {newNetwork(t, "north").Root(), a, sealed},
		"another key in it": {s.Root(), a, wrong},
		"a short key in it": {s.Root(), a, short},
	} {
		if _, err := OpenSigner(c.root, c.self, c.sealed); !fault.Is(err, fault.Corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAVoterRefusesAnotherNetworksRequest(t *testing.T) {
	s := newNetwork(t, "north")
	if _, err := s.Issue(newRequest(t, newNode(t), "south", "Mercy"), time.Now()); !fault.Is(err, fault.Denied) {
		t.Error(err)
	}
}
