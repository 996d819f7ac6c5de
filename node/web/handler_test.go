package web

import (
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"time"

	"pelago/cluster/fault"
	"pelago/dimse/dicom"
	"pelago/dimse/dict"
)

// door lets in whoever knows the word.
type door struct{}

func (door) Login(r *http.Request) (string, error) {
	if user, word, _ := r.BasicAuth(); word == "sesame" {
		return user, nil
	}
	return "", fault.New(fault.Denied, "wrong password of user x")
}

func TestLogin(t *testing.T) {
	s := newSite(t, Options{Login: door{}, Origins: []string{"https://viewer.example"}})
	res := s.get("/dicom-web/studies", "")
	if body := s.body(res, 401); res.Header.Get("WWW-Authenticate") == "" || string(body) != "not allowed\n" {
		t.Errorf("%v %s", res.Header, body)
	}
	s.body(s.get("/dicom-web/studies", "", "Authorization", "Basic eDp4"), 403)
	s.body(s.get("/dicom-web/studies", "", "Authorization", "Basic YW5uYTpzZXNhbWU="), 200)
	if e := s.events.last(t); e.User != "anna" {
		t.Errorf("%+v", e)
	}
	s.body(s.do("OPTIONS", "/dicom-web/studies", "", nil, "Origin", "https://viewer.example", "Access-Control-Request-Method", "GET"), 204)
}

func TestCapabilitiesListWhatIsServed(t *testing.T) {
	s := newSite(t, Options{})
	var answer struct {
		Base      string
		Resources []capability
	}
	if err := json.Unmarshal(s.body(s.get("/dicom-web", "application/json"), 200), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Base != s.server.URL+"/dicom-web" {
		t.Errorf("base %q", answer.Base)
	}
	for _, c := range answer.Resources {
		for _, method := range c.Methods {
			r, err := http.NewRequest(method, s.server.URL+"/dicom-web"+c.Path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, pattern := s.server.Config.Handler.(*Handler).mux.Handler(r); pattern == "" {
				t.Errorf("%s %s is listed and not served", method, c.Path)
			}
		}
	}
	var wadl wadlApplication
	if err := xml.Unmarshal(s.body(s.do("OPTIONS", "/dicom-web/", "", nil), 200), &wadl); err != nil || len(wadl.Resources.Resource) != len(answer.Resources) {
		t.Errorf("%v, %d resources", err, len(wadl.Resources.Resource))
	}
}

// gauge keeps what it is told.
type gauge struct {
	mu   sync.Mutex
	seen []string
}

func (g *gauge) Observe(operation string, status int, _ time.Duration, _ int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, fmt.Sprint(operation, " ", status))
}

func TestMetrics(t *testing.T) {
	g := &gauge{}
	s := newSite(t, Options{Metric: g})
	ref := s.put(ctFolder + "CTImage.dcm")
	s.body(s.get("/dicom-web/studies", ""), 200)
	s.body(s.get(instancePath(ref), ""), 200)
	s.body(s.get(instancePath(ref)+"/metadata", ""), 200)
	s.body(s.get(instancePath(ref)+"/frames/2", ""), 404)
	s.body(s.get("/dicom-web/studies?x=y", ""), 400)
	if want := []string{"search 200", "retrieve 200", "metadata 200", "frames 404", "search 400"}; !reflect.DeepEqual(g.seen, want) {
		t.Errorf("%q, want %q", g.seen, want)
	}
}

func TestAClientThatTakesNothingIsLetGo(t *testing.T) {
	s := newSite(t, Options{Limits: Limits{Stall: time.Second}})
	ds := synthetic("1.2.3", "1.2.3.4", "1.2.3.4.5")
	ds.Put(dicom.Element{Tag: tagPixels, VR: dict.OB, Value: make([]byte, 64<<20)})
	ref := s.putSet(ds)
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAccept: application/dicom; transfer-syntax=*\r\n\r\n", instancePath(ref))
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the answer has begun
		t.Fatal(err)
	}
	s.server.Close() // waits for the handler, although the client reads nothing more
	if e := s.events.last(t); e.Status != 0 || e.Bytes >= 64<<20 {
		t.Errorf("%+v", e)
	}
}

func TestServerSpeaksTLSAndHTTP2(t *testing.T) {
	s := newSite(t, Options{})
	ref := s.put(ctFolder + "CTImage.dcm")
	s.server.Close()
	h, err := New(s.memory, nil, s.engine, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Patterns(); !reflect.DeepEqual(got, []string{"/dicom-web/", "/dicom-web", "/wado"}) {
		t.Errorf("%q", got)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The certificate of the standard library's test server will do.
	tlsServer := newTLSServer(t)
	server := NewServer(h, ServerOptions{TLS: &tls.Config{Certificates: tlsServer.TLS.Certificates}})
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	client := tlsServer.Client().Transport.(*http.Transport).Clone()
	client.ForceAttemptHTTP2 = true
	r, _ := http.NewRequest("GET", "https://"+listener.Addr().String()+instancePath(ref)+"/frames/1", nil)
	res, err := client.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || res.ProtoMajor != 2 || len(b) < 512*512*2 {
		t.Errorf("%v HTTP/%d, %d bytes", err, res.ProtoMajor, len(b))
	}
	client.CloseIdleConnections()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-done
}

func TestAGiantDoesNotEmptyACache(t *testing.T) {
	c := newLRU[string, int](100)
	c.put("a", 1, 25)
	c.put("giant", 9, 26)
	if _, ok := c.get("giant"); ok {
		t.Error("a value over a quarter of the room was kept")
	}
	if v, ok := c.get("a"); !ok || v != 1 {
		t.Errorf("%d %t", v, ok)
	}
}
