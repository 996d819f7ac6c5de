package dimse

import "testing"

func TestTitles(t *testing.T) {
	for text, want := range map[string]bool{
		"PELAGO": true, "CT 1": true, "a-b_c.d@e": true, "1234567890123456": true, "ÄRZTE": false,
		"": false, "12345678901234567": false, `A\B`: false, " A": false, "A ": false, " ": false, "A\n": false, "A\x7f": false,
	} {
		if IsTitle(text) != want {
			t.Errorf("%q: %t", text, !want)
		}
	}
}
