package authority

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pelago/cluster/fault"
)

func FuzzRequest(f *testing.F) {
	der, err := NewRequest(newNode(f), "north", "Mercy")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := ParseRequest(der)
		if err == nil && r.Name.Check() != nil {
			t.Fatalf("%+v was taken", r.Name)
		}
		if err != nil && !fault.Is(err, fault.Invalid) {
			t.Fatalf("an error of another kind: %v", err)
		}
	})
}

// FuzzCertificate shows certificates to a network that issued none of them.
func FuzzCertificate(f *testing.F) {
	theirs, ours := newNetwork(f, "north"), newNetwork(f, "north").Root()
	f.Add(issue(f, theirs, newNode(f), "Mercy", time.Now()))
	f.Add(theirs.root.DER())
	f.Fuzz(func(t *testing.T, der []byte) {
		if name, err := ours.Verify(der, time.Now()); err == nil {
			t.Fatalf("%v was taken", name)
		}
		if r, err := ParseRoot(der); err == nil && !validNetwork(r.Network()) {
			t.Fatalf("a root of %q was taken", r.Network())
		}
	})
}

// FuzzExchange sends whatever a stranger may send to an office that knows no
// token.
func FuzzExchange(f *testing.F) {
	s, self := newNetwork(f, "north"), newNode(f)
	token, _, err := NewToken(s.root, 0, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	e, err := NewEnrollment(s.root, self, token, "Mercy", somePlace)
	if err != nil {
		f.Fatal(err)
	}
	n, err := NewRenewal(s.root, self, issue(f, s, self, "Mercy", time.Now()))
	if err != nil {
		f.Fatal(err)
	}
	for op, body := range map[byte][]byte{opEnroll: e.append(nil), opRenew: n.append(nil), opGranted: {}, 9: {1}} {
		var b bytes.Buffer
		if err := writeMessage(&b, op, body); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	office := NewRegistrar(s, &Ledger{})
	f.Fuzz(func(t *testing.T, b []byte) {
		op, body, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(body) > maxMessage || len(body) > len(b) {
			t.Fatalf("%d bytes of %d", len(body), len(b))
		}
		if der, err := handle(t.Context(), office, op, body); err == nil {
			t.Fatalf("a stranger got %x", der)
		}
	})
}

func FuzzPapers(f *testing.F) {
	b, err := os.ReadFile(filepath.Join("testdata", "keys", papersFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[8 : len(b)-32])
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parsePapers(b); err == nil && len(p.Root)+len(p.Certificate)+len(p.Key)+6 != len(b) {
			t.Fatal("bytes were lost")
		}
	})
}
