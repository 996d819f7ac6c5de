package authority

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"slices"
	"strings"
	"time"
	"unicode"

	"pelago/cluster/fault"
)

const (
	// TokenLifetime is how long a join token is good for if nothing else is said.
	TokenLifetime = time.Hour
	// MaxTokenLifetime bounds what may be said.
	MaxTokenLifetime = 7 * 24 * time.Hour

	tokenPrefix  = "pelago"
	tokenVersion = "1"
	secretBytes  = 16 // not to be guessed: 128 random bits
	tokenBytes   = sha256.Size + secretBytes + 4
	seedContext  = "pelago join token v1\x00"
	maxTokenText = 256 // with white space that a mail put in
)

// base32Lower is RFC 4648's alphabet in lower case: letters and digits only, so
// that a double click takes the whole of a token.
var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token lets one node into one network. It holds a secret: it is shown once and
// never logged.
type Token struct {
	pin    [sha256.Size]byte
	secret [secretBytes]byte
}

// Ticket is what the network remembers of a token: nobody who reads it can join.
type Ticket struct {
	Key     [ed25519.PublicKeySize]byte // public half of the token's key
	Expires time.Time
}

// NewToken makes a token of a network and its ticket. A lifetime of 0 is
// [TokenLifetime]; fault.Invalid for one that is negative or over
// [MaxTokenLifetime].
func NewToken(root *Root, lifetime time.Duration, now time.Time) (Token, Ticket, error) {
	if lifetime == 0 {
		lifetime = TokenLifetime
	}
	if lifetime < 0 || lifetime > MaxTokenLifetime {
		return Token{}, Ticket{}, fault.New(fault.Invalid, "authority: a token lasts at most %v", MaxTokenLifetime)
	}
	t := Token{pin: root.hash}
	rand.Read(t.secret[:])
	return t, Ticket{Key: t.ticket(), Expires: now.Add(lifetime)}, nil
}

// Pin is the hash of the network's root certificate.
func (t Token) Pin() [sha256.Size]byte { return t.pin }

// key is the signing key that the secret stands for.
func (t Token) key() ed25519.PrivateKey {
	seed := sha256.Sum256(slices.Concat([]byte(seedContext), t.pin[:], t.secret[:]))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (t Token) ticket() [ed25519.PublicKeySize]byte {
	return [ed25519.PublicKeySize]byte(t.key().Public().(ed25519.PublicKey))
}

// Text is the token as an operator carries it: one word of 91 letters and digits.
func (t Token) Text() string {
	b := slices.Concat(t.pin[:], t.secret[:])
	b = binary.BigEndian.AppendUint32(b, tokenSum(b))
	return tokenPrefix + tokenVersion + base32Lower.EncodeToString(b)
}

// String hides the secret, so that no log shows it by accident.
func (t Token) String() string { return "join token" }

// GoString hides the secret too.
func (t Token) GoString() string { return t.String() }

// ParseToken reads a token's text, in either case, whatever white space was put
// into it. fault.Invalid if it is no token or was torn or mistyped,
// fault.Unsupported if a newer Pelago made it. What is wrong is said without
// repeating any of the text.
func ParseToken(text string) (Token, error) {
	var t Token
	if len(text) > maxTokenText {
		return t, fault.New(fault.Invalid, "authority: this is too long for a join token")
	}
	text = strings.ToLower(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text))
	body, ok := strings.CutPrefix(text, tokenPrefix)
	switch {
	case !ok || body == "":
		return t, fault.New(fault.Invalid, "authority: a join token begins with %q", tokenPrefix+tokenVersion)
	case body[0] >= '2' && body[0] <= '9':
		return t, fault.New(fault.Unsupported, "authority: the join token is of a newer version")
	case body[:1] != tokenVersion:
		return t, fault.New(fault.Invalid, "authority: a join token begins with %q", tokenPrefix+tokenVersion)
	}
	body = body[1:]
	if want := base32Lower.EncodedLen(tokenBytes); len(body) != want {
		return t, fault.New(fault.Invalid, "authority: the join token is torn: %d of %d characters", len(body), want)
	}
	b, err := base32Lower.DecodeString(body)
	if err != nil || base32Lower.EncodeToString(b) != body {
		return t, fault.New(fault.Invalid, "authority: the join token holds characters that it cannot hold")
	}
	sum := len(b) - 4
	if binary.BigEndian.Uint32(b[sum:]) != tokenSum(b[:sum]) {
		return t, fault.New(fault.Invalid, "authority: the join token does not match its checksum: copy it again")
	}
	copy(t.pin[:], b)
	copy(t.secret[:], b[len(t.pin):])
	return t, nil
}

// tokenSum finds slips of the hand; it keeps nobody out.
func tokenSum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
