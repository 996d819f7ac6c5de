package match

import (
	"slices"
	"strings"
)

// Names sound alike across spellings. Each word has two codes, for the two ways
// in which people of different languages read the same letters: a hard one
// (CH and G as K, J as Y: Christian, Georg, Jansen) and a soft one (CH, J, X and
// Q as sibilants, G too before E, I and Y: Chang, Charles, Geoffrey, Xu). Two
// words sound alike if they share a code. Within a code
//
//   - consonants are in eight classes: P (B), F (V, W, PH), T (D, TH), K (C, G, Q),
//     S (all sibilants and affricates of any spelling: Z, SH, SCH, CZ, TS, TZ, ZH,
//     HS…), L, R, N (M);
//   - vowels count at the start of a word only, where they are all A; H and Y
//     count there too;
//   - a letter doubled is one.
//
// So Meyer, Maier and Mayr are NR; Schmidt, Schmitt and Smith SNT; Zhang and
// Chang SN; Tchaikovsky, Tschaikowski and Chaikovsky SKFSK. It is a Soundex with
// the digraphs of European languages and of Pinyin, Wade-Giles and Hepburn,
// small enough to be read.

// maxCode is the longest code; no word that people tell apart needs more.
const maxCode = 12

// code is the phonetic code of a word: letters padded with zeros; empty if the
// word has no Latin letters.
type code [maxCode]byte

// text returns the code's letters.
func (c *code) text() string {
	n := 0
	for n < maxCode && c[n] != 0 {
		n++
	}
	return string(c[:n])
}

// word is one word of a key.
type word struct {
	text       string
	hard, soft code
}

// FuzzyCodes returns the phonetic codes of the words of a person name, all
// component groups; two names match fuzzily when every word of the key has its
// code among the other's, or is a prefix of one of its words. A word has one or
// two codes; a word without Latin letters is its own code.
func FuzzyCodes(name string) []string {
	var codes []string
	for _, w := range newWords(name) {
		for _, c := range [...]code{w.hard, w.soft} {
			text := c.text()
			if text == "" {
				text = w.text
			}
			if !slices.Contains(codes, text) {
				codes = append(codes, text)
			}
		}
	}
	return codes
}

func newWords(name string) []word {
	folded := appendFoldName(nil, []byte(strings.ReplaceAll(name, "=", "^")), false)
	var words []word
	for _, w := range strings.FieldsFunc(string(folded), isWordEnd) {
		words = append(words, word{text: w, hard: encodeWord([]byte(w), false), soft: encodeWord([]byte(w), true)})
	}
	return words
}

func isWordEnd(r rune) bool { return r == ' ' || r == '^' || r == '=' }

// matchWords reports whether each word of the key sounds like a word of the
// name or begins one; the order does not count.
func matchWords(key []word, name []byte) bool {
	var room [192]byte
	folded := room[:0]
	for start := 0; start <= len(name); {
		end := start
		for end < len(name) && name[end] != '=' {
			end++
		}
		folded = append(appendFoldName(folded, name[start:end], false), '^')
		start = end + 1
	}
	for i := range key {
		if !matchWord(&key[i], folded) {
			return false
		}
	}
	return true
}

func matchWord(key *word, folded []byte) bool {
	for start := 0; start < len(folded); {
		end := start
		for end < len(folded) && !isWordEnd(rune(folded[end])) {
			end++
		}
		if w := folded[start:end]; len(w) > 0 && soundsLike(key, w) {
			return true
		}
		start = end + 1
	}
	return false
}

// soundsLike reports whether a folded word begins with the key's, or has a code
// of it.
func soundsLike(key *word, w []byte) bool {
	if len(w) >= len(key.text) && string(w[:len(key.text)]) == key.text {
		return true
	}
	if key.hard == (code{}) {
		return false // no Latin letters: its own code, which is the prefix above
	}
	hard := encodeWord(w, false)
	if hard == key.hard || hard == key.soft {
		return true
	}
	soft := encodeWord(w, true)
	return soft == key.hard || soft == key.soft
}

// encodeWord returns the code of a folded word.
func encodeWord(w []byte, soft bool) code {
	e := encoder{w: w, soft: soft}
	for e.at < len(w) && e.n < maxCode {
		e.at += e.step()
	}
	return e.code
}

// encoder is the state of encoding one word.
type encoder struct {
	w     []byte
	at    int
	soft  bool
	code  code
	n     int  // letters of code
	vowel bool // a vowel since the last one
}

func (e *encoder) emit(c byte) {
	if e.n == maxCode || e.n > 0 && e.code[e.n-1] == c && !e.vowel {
		return
	}
	e.code[e.n] = c
	e.n++
	e.vowel = false
}

func (e *encoder) has(s string) bool {
	return len(e.w)-e.at >= len(s) && string(e.w[e.at:e.at+len(s)]) == s
}

// next returns the letter n after the current one, or 0.
func (e *encoder) next(n int) byte {
	if e.at+n < 0 || e.at+n >= len(e.w) {
		return 0
	}
	return e.w[e.at+n]
}

func isVowel(c byte) bool {
	return c == 'A' || c == 'E' || c == 'I' || c == 'O' || c == 'U' || c == 'Y'
}

func isFront(c byte) bool { return c == 'E' || c == 'I' || c == 'Y' }

// step encodes what stands at the current letter and returns how many letters
// it took.
func (e *encoder) step() int {
	switch c := e.w[e.at]; c {
	case 'A', 'E', 'I', 'O', 'U':
		if e.at == 0 {
			e.emit('A')
		}
		e.vowel = true
	case 'Y':
		return e.stepY()
	case 'J':
		if e.soft && isVowel(e.next(1)) {
			e.emit('S')
			return 1
		}
		return e.stepY()
	case 'H':
		if e.has("HS") && e.at == 0 {
			e.emit('S')
			return 2
		}
		if e.at == 0 {
			e.emit('H')
		}
	case 'B':
		e.emit('P')
	case 'P':
		return e.stepP()
	case 'F', 'V':
		e.emit('F')
	case 'W':
		return e.stepW()
	case 'D', 'T':
		return e.stepT()
	case 'C', 'G', 'K', 'Q', 'X':
		return e.stepK(c)
	case 'S', 'Z':
		return e.stepS()
	case 'L', 'R':
		e.emit(c)
	case 'M':
		e.emit('N')
		if e.next(1) == 'P' && (e.next(2) == 'S' || e.next(2) == 'T') {
			return 2 // Thompson
		}
	case 'N':
		e.emit('N')
		if e.next(1) == 'G' && !isVowel(e.next(2)) {
			return 2 // Zhang, Singh
		}
	}
	return 1
}

// stepY is Y, and J where it is read as Y.
func (e *encoder) stepY() int {
	if e.at == 0 && isVowel(e.next(1)) {
		e.emit('Y')
		return 1
	}
	if e.at == 0 {
		e.emit('A') // Yves as Ives
	}
	e.vowel = true
	return 1
}

func (e *encoder) stepP() int {
	switch {
	case e.has("PH"), e.has("PF"):
		e.emit('F')
		return 2
	case e.at == 0 && e.has("PS"):
		e.emit('S')
		return 2
	}
	e.emit('P')
	return 1
}

func (e *encoder) stepW() int {
	switch {
	case e.at == 0 && e.has("WR"): // Wright
	case e.soft && e.at > 0 && isVowel(e.next(-1)) && !isVowel(e.next(1)): // Brown as Braun; hard: Iwanow as Ivanov
	default:
		e.emit('F')
	}
	return 1
}

func (e *encoder) stepT() int {
	for _, s := range [...]string{"TSCH", "DSCH", "TCH", "DZH", "TZ", "TS", "DZ"} {
		if e.has(s) {
			e.emit('S')
			return len(s)
		}
	}
	e.emit('T')
	return 1
}

func (e *encoder) stepS() int {
	for _, s := range [...]string{"SCHTSCH", "SHCH", "SZCZ", "SCH", "SH", "SZ", "ZH"} {
		if e.has(s) {
			e.emit('S')
			return len(s)
		}
	}
	e.emit('S')
	return 1
}

// stepK is the letters whose sound depends most on the language.
func (e *encoder) stepK(c byte) int {
	switch {
	case c == 'K' && e.at == 0 && e.has("KN") && e.soft: // Knight
		return 1
	case c == 'G' && e.has("GN"): // Agnes as Anjes is rare: Gnädig, Magnus keep their K when hard
		if !e.soft {
			e.emit('K')
		}
		return 1
	case c == 'C' && e.has("CZ"):
		e.emit('S')
		return 2
	case c == 'C' && e.has("CH"):
		if e.soft && e.next(2) != 'R' && e.next(2) != 'L' {
			e.emit('S')
		} else {
			e.emit('K')
		}
		return 2
	case c == 'C' && isFront(e.next(1)):
		e.emit('S')
	case c == 'G' && e.has("GH") && (!isVowel(e.next(2)) || e.next(-1) == 'U'): // Wright, Vaughan
		return 2
	case c == 'G' && e.soft && isFront(e.next(1)):
		e.emit('S')
	case c == 'Q' && e.soft && e.next(1) != 'U': // Qian
		e.emit('S')
	case c == 'X' && (e.soft || e.at == 0):
		e.emit('S')
	case c == 'X':
		e.emit('K')
		e.emit('S')
	default:
		e.emit('K')
	}
	return 1
}
