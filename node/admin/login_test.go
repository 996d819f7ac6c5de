package admin

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pelago/cluster/fault"
)

// hashOf is a password hash that is quick to check.
func hashOf(t *testing.T, password string) string {
	t.Helper()
	const iterations = 1000
	salt := []byte("0123456789abcdef")
	key, err := pbkdf2.Key(sha256.New, password, salt, iterations, 32)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{hashScheme, strconv.Itoa(iterations), b64.EncodeToString(salt), b64.EncodeToString(key)}, "$")
}

// slowHashOf is one as it is configured.
func slowHashOf(t *testing.T, password string) string {
	t.Helper()
	hash, err := HashPassword(password)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// basic is the header of a login.
func basic(user, password string) string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return r.Header.Get("Authorization")
}

func TestWhoMayDoWhat(t *testing.T) {
	users := map[string]string{"ann": hashOf(t, "secret")}
	token := "Bearer " + testToken
	const read, change = "/api/status", "/api/pack"
	for _, test := range []struct {
		name         string
		users        map[string]string
		hosts        []string
		header       []string
		read, change int
	}{
		{"no login where none is needed", nil, nil, nil, 200, 401},
		{"the node's token", nil, nil, []string{"Authorization", token}, 200, 204},
		{"a wrong token", nil, nil, []string{"Authorization", "Bearer guess"}, 401, 401},
		{"no token", nil, nil, []string{"Authorization", "Bearer "}, 401, 401},
		{"a password where nobody has one", nil, nil, []string{"Authorization", basic("ann", "secret")}, 401, 401},
		{"another scheme", nil, nil, []string{"Authorization", "Digest x"}, 401, 401},

		{"no login where one is needed", users, nil, nil, 401, 401},
		{"a login", users, nil, []string{"Authorization", basic("ann", "secret")}, 200, 204},
		{"a wrong password", users, nil, []string{"Authorization", basic("ann", "Secret")}, 401, 401},
		{"an empty password", users, nil, []string{"Authorization", basic("ann", "")}, 401, 401},
		{"a name that nobody has", users, nil, []string{"Authorization", basic("bob", "secret")}, 401, 401},
		{"a hash for a password", users, nil, []string{"Authorization", basic("ann", users["ann"])}, 401, 401},
		{"the token where logins are needed", users, nil, []string{"Authorization", token}, 200, 204},

		{"localhost", nil, nil, []string{"Host", "localhost:8080"}, 200, 401},
		{"IPv6 loopback", nil, nil, []string{"Host", "[::1]:8080"}, 200, 401},
		{"a rebound name", nil, nil, []string{"Host", "evil.example"}, 403, 401},
		{"a rebound address", nil, nil, []string{"Host", "10.0.0.1:8080"}, 403, 401},
		{"a name that looks like loopback", nil, nil, []string{"Host", "127.0.0.1.evil.example"}, 403, 401},
		{"a proxy's name", nil, []string{"pacs.example"}, []string{"Host", "PACS.example:443"}, 200, 401},
		{"another than the proxy's", nil, []string{"pacs.example"}, []string{"Host", "evil.example"}, 403, 401},
		{"any name", nil, []string{"a.example", "*"}, []string{"Host", "10.0.0.1"}, 200, 401},
		{"a rebound name with a login", users, nil, []string{"Host", "evil.example", "Authorization", basic("ann", "secret")}, 200, 204},

		{"a page of another origin", users, nil, []string{"Authorization", basic("ann", "secret"), "Sec-Fetch-Site", "cross-site"}, 200, 403},
		{"an old browser's page of another origin", users, nil, []string{"Authorization", basic("ann", "secret"), "Origin", "https://evil.example"}, 200, 403},
		{"our own page", users, nil, []string{"Authorization", basic("ann", "secret"), "Sec-Fetch-Site", "same-origin"}, 200, 204},
		{"an old browser's own page", users, nil, []string{"Authorization", basic("ann", "secret"), "Origin", "http://127.0.0.1:8080"}, 200, 204},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSite(t, test.users, test.hosts...)
			for _, ask := range []struct {
				method, path string
				want         int
			}{{"GET", read, test.read}, {"POST", change, test.change}} {
				s.calls, s.events = nil, nil
				r := s.do(ask.method, ask.path, "", test.header...)
				if r.StatusCode != ask.want {
					t.Errorf("%s: %d, want %d", ask.path, r.StatusCode, ask.want)
				}
				if (r.StatusCode < 300) != (len(s.calls) == 1) {
					t.Errorf("%s: %d, calls %q", ask.path, r.StatusCode, s.calls)
				}
				if (r.Header.Get("WWW-Authenticate") != "") != (r.StatusCode == 401) {
					t.Errorf("%s: %d asks for a login: %q", ask.path, r.StatusCode, r.Header.Get("WWW-Authenticate"))
				}
				if e := s.lastEvent(); r.StatusCode >= 400 && (!fault.Is(e.Err, fault.Denied) || e.Remote != "10.0.0.7") {
					t.Errorf("%s: a refusal is audited as %+v", ask.path, e)
				}
			}
		})
	}
}

func TestThePageIsGuardedLikeTheStatusThatItReads(t *testing.T) {
	for _, path := range []string{"/", "/page.js", "/page.css", "/icon.svg", "/api/status"} {
		free, guarded := newSite(t, nil), newSite(t, map[string]string{"ann": hashOf(t, "secret")})
		for _, test := range []struct {
			name   string
			s      *site
			header []string
			want   int
		}{
			{"on loopback", free, nil, 200},
			{"under another name", free, []string{"Host", "evil.example"}, 403},
			{"without a login", guarded, nil, 401},
			{"with a wrong one", guarded, []string{"Authorization", basic("ann", "guess")}, 401},
			{"with a login", guarded, []string{"Authorization", basic("ann", "secret")}, 200},
		} {
			if got := test.s.do("GET", path, "", test.header...).StatusCode; got != test.want {
				t.Errorf("%s %s: %d, want %d", path, test.name, got, test.want)
			}
		}
		if e := guarded.lastEvent(); e.Action != "read" || e.Object != path {
			t.Errorf("%s: the refusal is audited as %+v", path, e)
		}
	}
	if got := newSite(t, nil).do("GET", "/nothing", "").StatusCode; got != 404 {
		t.Errorf("a path that is none: %d", got)
	}
}

func TestConfiguredHashesThatAreNoneAreRefused(t *testing.T) {
	good := hashOf(t, "x")
	parts := strings.Split(good, "$")
	for name, hash := range map[string]string{
		"plain":           "secret",
		"empty":           "",
		"another scheme":  strings.Replace(good, "sha256", "md5", 1),
		"no iterations":   strings.Join([]string{parts[0], "0", parts[2], parts[3]}, "$"),
		"too many":        strings.Join([]string{parts[0], "99999999999", parts[2], parts[3]}, "$"),
		"no salt":         strings.Join([]string{parts[0], parts[1], "", parts[3]}, "$"),
		"a cut hash":      strings.Join([]string{parts[0], parts[1], parts[2], parts[3][:10]}, "$"),
		"no base64":       strings.Join([]string{parts[0], parts[1], "!!!", parts[3]}, "$"),
		"a trailing part": good + "$",
	} {
		if _, err := NewGuard(map[string]string{"ann": hash}, "t", nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewGuard(map[string]string{"ann": good}, "t", nil); err != nil {
		t.Error(err)
	}
}

func TestHashesDifferForEqualPasswordsAndHoldThem(t *testing.T) {
	one, other := slowHashOf(t, "x"), slowHashOf(t, "x")
	if one == other {
		t.Error("two hashes of one password are equal")
	}
	if !checkPassword("x", one) || !checkPassword("x", other) || checkPassword("y", one) {
		t.Error("a hash does not tell its password")
	}
}

// counted has a site's guard note the iterations of every hash that it checks.
func counted(t *testing.T, s *site) *[]int {
	t.Helper()
	var all []int
	check := s.guard.check
	s.guard.check = func(password, hash string) bool {
		iterations, _, _, err := parseHash(hash)
		if err != nil {
			t.Errorf("a hash that is none is checked: %v", err)
		}
		all = append(all, iterations)
		return check(password, hash)
	}
	return &all
}

// The time of a login is that of its hash: a name that nobody has costs as many
// iterations as a wrong password, those of the slowest hash that is configured.
func TestTheTimeOfALoginDoesNotTellNames(t *testing.T) {
	s := newSite(t, map[string]string{"ann": slowHashOf(t, "secret"), "old": hashOf(t, "secret")})
	checked := counted(t, s)
	for _, user := range []string{"ann", "bob", ""} {
		if got := s.do("GET", "/api/status", "", "Authorization", basic(user, "wrong")).StatusCode; got != 401 {
			t.Errorf("%q: status %d", user, got)
		}
	}
	if want := []int{hashIterations, hashIterations, hashIterations}; !slices.Equal(*checked, want) {
		t.Errorf("iterations %v, want %v", *checked, want)
	}
}

func TestARightPasswordIsRememberedAndAWrongOneIsNot(t *testing.T) {
	s := newSite(t, map[string]string{"ann": slowHashOf(t, "secret")})
	checked := counted(t, s)
	login := func(password string) int {
		return s.do("GET", "/api/status", "", "Authorization", basic("ann", password)).StatusCode
	}
	if login("secret") != 200 || len(s.guard.known) != 1 {
		t.Errorf("%d remembered", len(s.guard.known))
	}
	for range 3 {
		if login("wrong") != 401 {
			t.Error("a wrong password is right")
		}
	}
	if len(s.guard.known) != 1 {
		t.Errorf("%d remembered", len(s.guard.known))
	}
	before := len(*checked)
	for range 100 {
		if login("secret") != 200 {
			t.Fatal("forgotten")
		}
	}
	if n := len(*checked) - before; n != 0 {
		t.Errorf("100 logins with a known password checked %d hashes", n)
	}
}
