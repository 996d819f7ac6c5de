package dimse

import "strings"

// MaxTitle is the longest AE title, in characters (VR AE, PS3.5 §6.2).
const MaxTitle = 16

// IsTitle reports whether text can be an AE title as it is compared: 1 to 16
// printable characters of the default repertoire without backslash, and without
// the blanks at its ends that do not count.
func IsTitle(text string) bool {
	if text == "" || len(text) > MaxTitle || strings.Trim(text, " ") != text {
		return false
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' || text[i] == '\\' {
			return false
		}
	}
	return true
}
