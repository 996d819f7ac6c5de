package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"pelago/cluster/authority"
	"pelago/cluster/identity"
	"pelago/cluster/port"
	"pelago/node/member"
	"pelago/replication/catalog"
	"pelago/replication/catalog/catalogpb"
)

// registered is a catalogue's registry, by kind and name.
type registered map[string]map[string][]byte

func (r registered) Registry(kind string) (map[string][]byte, error) { return r[kind], nil }
func (r registered) RegistryRecord(kind, name string) ([]byte, error) {
	return r[kind][name], nil
}
func (registered) Changed() <-chan struct{} { return nil }
func (registered) Sync() error              { return nil }

func TestCallsThatTellOfPatientsAreForMembers(t *testing.T) {
	signer, err := authority.Found("north", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	records := registered{catalog.KindMember: {}, catalog.KindRevoked: {}}
	callers := map[string]*http.Request{"nobody": httptest.NewRequest(http.MethodGet, "/x", nil)}
	for _, name := range []string{"member", "witness", "removed", "stranger"} {
		self, err := identity.Open(vfs.NewMem(), "keys")
		if err != nil {
			t.Fatal(err)
		}
		der, err := authority.NewRequest(self, "north", "Mercy")
		if err != nil {
			t.Fatal(err)
		}
		request, err := authority.ParseRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		issued, err := signer.Issue(request, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(issued)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}, NegotiatedProtocol: string(port.Peer)}
		callers[name] = r
		if name == "stranger" { // with a certificate of the network's authority, and no member
			continue
		}
		sealing, proof := self.Sealing(), self.SealingProof()
		records[catalog.KindMember][self.ID()], err = proto.Marshal(&catalogpb.Member{
			Site: "Mercy", PublicKey: self.Public(), SealingKey: sealing[:], SealingProof: proof[:], Witness: name == "witness",
		})
		if err != nil {
			t.Fatal(err)
		}
		if name == "removed" {
			records[catalog.KindRevoked][self.ID()] = []byte(`{"version":1}`)
		}
	}
	w := &network{}
	if w.registry, err = member.NewRegistry(member.RegistryOptions{Catalog: records, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	answer := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) })
	for name, want := range map[string]struct{ reads, copies int }{
		"member":   {http.StatusNoContent, http.StatusNoContent},
		"witness":  {http.StatusServiceUnavailable, http.StatusNoContent},
		"removed":  {http.StatusServiceUnavailable, http.StatusServiceUnavailable},
		"stranger": {http.StatusServiceUnavailable, http.StatusServiceUnavailable},
		"nobody":   {http.StatusForbidden, http.StatusForbidden},
	} {
		for _, call := range []struct {
			what    string
			handler http.Handler
			want    int
		}{{"reading", w.readers(answer), want.reads}, {"copying", w.members(answer), want.copies}} {
			got := httptest.NewRecorder()
			call.handler.ServeHTTP(got, callers[name])
			if got.Code != call.want {
				t.Errorf("%s, %s: %d, want %d", name, call.what, got.Code, call.want)
			}
		}
	}
}
