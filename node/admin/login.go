package admin

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"pelago/cluster/fault"
)

// Guard knows who may use the web port.
type Guard struct {
	users map[string]string // name → hash
	token string            // of administration; never empty
	open  bool              // no login is needed to read: loopback, or told so
	hosts []string          // names under which a loopback port is reached, besides loopback's own

	mu      sync.Mutex
	known   map[[32]byte]bool // passwords that were right: PBKDF2 is meant to be slow
	pending chan struct{}     // places for hashing
}

// maxKnown bounds the remembered passwords; maxHashing what guesses may cost.
const (
	maxKnown   = 1024
	maxHashing = 2
)

// NewGuard returns a guard. open says that reading needs no login.
func NewGuard(users map[string]string, token string, open bool, hosts []string) *Guard {
	return &Guard{
		users: users, token: token, open: open, hosts: hosts,
		known: map[[32]byte]bool{}, pending: make(chan struct{}, maxHashing),
	}
}

// NewToken makes a token of administration.
func NewToken() string { return rand.Text() }

// Login names who asks, "" for anonymous (node/web.Login).
func (g *Guard) Login(r *http.Request) (string, error) {
	if g.open && len(g.users) == 0 && !g.knownHost(r.Host) {
		// A page that rebinds its own name to 127.0.0.1 would read everything.
		return "", fault.New(fault.Denied, "this node is not reached under that host name")
	}
	user, err := g.credentials(r)
	if err == nil || !g.open || user != "" {
		return user, err
	}
	return "", nil
}

// Administer names who changes things; the node's own token is "admin".
func (g *Guard) Administer(r *http.Request) (string, error) { return g.credentials(r) }

// credentials checks a bearer token or a password. The user is returned with
// the error when the credentials were given and wrong.
func (g *Guard) credentials(r *http.Request) (string, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if subtle.ConstantTimeCompare([]byte(token), []byte(g.token)) == 1 {
			return "admin", nil
		}
		return "?", fault.New(fault.Denied, "wrong token")
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", fault.New(fault.Denied, "a login is needed")
	}
	if g.verify(r, user, password) {
		return user, nil
	}
	return user, fault.New(fault.Denied, "wrong user or password")
}

func (g *Guard) verify(r *http.Request, user, password string) bool {
	hash := g.users[user]
	seen := sha256.Sum256([]byte(user + "\x00" + password + "\x00" + hash))
	g.mu.Lock()
	known := g.known[seen]
	g.mu.Unlock()
	if known {
		return true
	}
	select {
	case g.pending <- struct{}{}:
		defer func() { <-g.pending }()
	case <-r.Context().Done():
		return false
	}
	if !checkPassword(password, hash) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.known) >= maxKnown {
		clear(g.known)
	}
	g.known[seen] = true
	return true
}

// knownHost reports whether a request's host is loopback's or configured.
func (g *Guard) knownHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	host = strings.Trim(host, "[]")
	if host == "localhost" || host == "" {
		return true
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback() || len(g.hosts) == 1 && g.hosts[0] == "*"
	}
	for _, h := range g.hosts {
		if h == "*" || strings.EqualFold(h, host) {
			return true
		}
	}
	return false
}

// Password hashes: pbkdf2-sha256$ITERATIONS$SALT$HASH, salt and hash in
// unpadded base64.
const (
	hashScheme     = "pbkdf2-sha256"
	hashIterations = 600_000
	hashMost       = 10_000_000 // iterations that a configured hash may ask for
)

// HashPassword returns the hash to be configured for a password.
func HashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, hashIterations, 32)
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return strings.Join([]string{hashScheme, strconv.Itoa(hashIterations), b64.EncodeToString(salt), b64.EncodeToString(key)}, "$"), nil
}

func checkPassword(password, hash string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != hashScheme {
		// The same work for unknown users: time must not tell names.
		parts = []string{hashScheme, strconv.Itoa(hashIterations), "AAAAAAAAAAAAAAAAAAAAAA", ""}
	}
	iterations, err := strconv.Atoi(parts[1])
	if err != nil || iterations < 1 || iterations > hashMost {
		return false
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[3])
	if err != nil {
		return false
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	return err == nil && len(want) == 32 && subtle.ConstantTimeCompare(key, want) == 1
}
