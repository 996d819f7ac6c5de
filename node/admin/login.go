package admin

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
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
	dummy string            // a hash for names that nobody has, as slow as the slowest
	token string            // of administration; never empty
	hosts []string          // names under which the port is reached, besides loopback's own

	// check holds a password against a hash: the slow part, which tests count.
	check func(password, hash string) bool

	mu      sync.Mutex
	known   map[[32]byte]bool // passwords that were right: PBKDF2 is meant to be slow
	pending chan struct{}     // places for hashing
}

// maxKnown bounds the remembered passwords; maxHashing what guesses may cost.
const (
	maxKnown   = 1024
	maxHashing = 2
)

// NewGuard returns a guard. Without users reading needs no login; hosts are the
// names under which the port may then be reached besides loopback's own, * for
// any. fault.Invalid: a password hash that is none.
func NewGuard(users map[string]string, token string, hosts []string) (*Guard, error) {
	slowest := 0
	for name, hash := range users {
		iterations, _, _, err := parseHash(hash)
		if err != nil {
			return nil, fault.New(fault.Invalid, "http.users: %s: %w", name, err)
		}
		slowest = max(slowest, iterations)
	}
	if len(users) == 0 {
		slowest = hashIterations
	}
	nobody := strings.Join([]string{hashScheme, strconv.Itoa(slowest), b64.EncodeToString(make([]byte, 16)), b64.EncodeToString(make([]byte, 32))}, "$")
	return &Guard{
		users: users, dummy: nobody, token: token, hosts: hosts, check: checkPassword,
		known: map[[32]byte]bool{}, pending: make(chan struct{}, maxHashing),
	}, nil
}

// NewToken makes a token of administration.
func NewToken() string { return rand.Text() }

// credentialsError is about a login that is missing or wrong: to be asked for.
type credentialsError struct{ text string }

func (e *credentialsError) Error() string { return e.text }

// Challenge tells faces to ask for a login (401), not to refuse one (403).
func (e *credentialsError) Challenge() bool { return true }

func badCredentials(text string) error {
	return fault.New(fault.Denied, "%w", &credentialsError{text})
}

// Login names who asks, "" for anonymous (node/web.Login).
func (g *Guard) Login(r *http.Request) (string, error) {
	if len(g.users) > 0 || r.Header.Get("Authorization") != "" {
		return g.credentials(r)
	}
	if !g.knownHost(r.Host) {
		// A page that rebinds its own name to 127.0.0.1 would read everything.
		return "", fault.New(fault.Denied, "this node is not reached under that host name")
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
		return "?", badCredentials("wrong token")
	}
	user, password, ok := r.BasicAuth()
	if !ok {
		return "", badCredentials("a login is needed")
	}
	if g.verify(r, user, password) {
		return user, nil
	}
	return user, badCredentials("wrong user or password")
}

// verify checks a password. For a name that nobody has it does the same work:
// the time it takes must not tell names.
func (g *Guard) verify(r *http.Request, user, password string) bool {
	hash, named := g.users[user]
	if !named {
		hash = g.dummy
	}
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
	if right := g.check(password, hash); !right || !named {
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
		if ip.IsLoopback() {
			return true
		}
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

var b64 = base64.RawStdEncoding

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
	return strings.Join([]string{hashScheme, strconv.Itoa(hashIterations), b64.EncodeToString(salt), b64.EncodeToString(key)}, "$"), nil
}

// parseHash reads a configured hash.
func parseHash(hash string) (iterations int, salt, want []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != hashScheme {
		return 0, nil, nil, errHash
	}
	iterations, err = strconv.Atoi(parts[1])
	if err != nil || iterations < 1 || iterations > hashMost {
		return 0, nil, nil, errHash
	}
	if salt, err = b64.DecodeString(parts[2]); err != nil || len(salt) < 8 {
		return 0, nil, nil, errHash
	}
	if want, err = b64.DecodeString(parts[3]); err != nil || len(want) != 32 {
		return 0, nil, nil, errHash
	}
	return iterations, salt, want, nil
}

var errHash = errors.New("no password hash, as 'pelago config password' prints it")

func checkPassword(password, hash string) bool {
	iterations, salt, want, err := parseHash(hash)
	if err != nil {
		return false
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	return err == nil && subtle.ConstantTimeCompare(key, want) == 1
}
