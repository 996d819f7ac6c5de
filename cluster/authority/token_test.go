package authority

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pelago/cluster/fault"
)

func TestATokenSurvivesTheClipboard(t *testing.T) {
	root := newNetwork(t, "north").Root()
	now := time.Now()
	token, ticket, err := NewToken(root, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	text := token.Text()
	if len(text) != 91 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		t.Errorf("the token %q is not one word of 91 letters and digits", text)
	}
	if !ticket.Expires.Equal(now.Add(TokenLifetime)) || ticket.Key != token.ticket() || token.Pin() != root.Hash() {
		t.Errorf("ticket %+v", ticket)
	}
	for name, text := range map[string]string{
		"as it is": text, "upper case": strings.ToUpper(text), "wrapped by a mail": text[:40] + "\r\n  " + text[40:], "with its line end": text + "\n",
	} {
		if got, err := ParseToken(text); err != nil || got != token {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range text { // whatever single character is lost, doubled, or mistyped
		for name, torn := range map[string]string{
			"lost": text[:i] + text[i+1:], "doubled": text[:i+1] + text[i:], "mistyped": text[:i] + string(next(text[i])) + text[i+1:], "cut": text[:i],
		} {
			if _, err := ParseToken(torn); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.Unsupported) {
				t.Fatalf("%s at %d: %v", name, i, err)
			}
		}
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if shown := fmt.Sprintf(format, token); shown != "join token" {
			t.Errorf("%s shows %s", format, shown)
		}
	}
}

func next(c byte) byte {
	if c == 'z' || c == '7' {
		return 'a'
	}
	return c + 1
}

func TestWhatIsWrongWithATokenIsSaidWithoutIt(t *testing.T) {
	token, _, err := NewToken(newNetwork(t, "north").Root(), time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text := token.Text()
	for name, c := range map[string]struct {
		text string
		kind fault.Kind
		says string
	}{
		"torn":            {text[:50], fault.Invalid, "torn: 43 of 84"},
		"another word":    {"password-of-mine", fault.Invalid, "begins with"},
		"empty":           {"", fault.Invalid, "begins with"},
		"prefix only":     {"pelago", fault.Invalid, "begins with"},
		"newer":           {"pelago2" + text[7:], fault.Unsupported, "newer"},
		"version 0":       {"pelago0" + text[7:], fault.Invalid, "begins with"},
		"a 1 for an l":    {text[:20] + "1" + text[21:], fault.Invalid, "cannot hold"},
		"another letter":  {text[:20] + string(next(text[20])) + text[21:], fault.Invalid, "checksum"},
		"far too long":    {strings.Repeat(text, 4), fault.Invalid, "too long"},
		"stray last bits": {text[:90] + "b", fault.Invalid, "cannot hold"},
	} {
		_, err := ParseToken(c.text)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), text[10:30]) || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: the error repeats the text: %v", name, err)
		}
	}
	for _, d := range []time.Duration{-1, MaxTokenLifetime + 1} {
		if _, _, err := NewToken(newNetwork(t, "north").Root(), d, time.Now()); !fault.Is(err, fault.Invalid) {
			t.Errorf("a lifetime of %v: %v", d, err)
		}
	}
}

func TestGoldenToken(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "token.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var token Token
	for i := range token.pin {
		token.pin[i] = byte(i)
	}
	for i := range token.secret {
		token.secret[i] = byte(0xf0 + i)
	}
	ticket := token.ticket()
	if got := token.Text() + "\n" + hex.EncodeToString(ticket[:]) + "\n"; got != string(b) {
		t.Errorf("the golden token is\n%swant\n%s", got, b)
	}
}

func FuzzToken(f *testing.F) {
	f.Add("pelago1" + strings.Repeat("a", 84))
	f.Add("pelago2x")
	b, err := os.ReadFile(filepath.Join("testdata", "token.txt"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(strings.Split(string(b), "\n")[0])
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.Text()); err != nil || again != token {
			t.Fatalf("%q reads as another token: %v", text, err)
		}
	})
}
