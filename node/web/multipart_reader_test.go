package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pelago/cluster/fault"
)

type gotPart struct {
	fields map[string]string
	body   string
}

// readParts reads all parts; the error is nil after the closing delimiter.
func readParts(r io.Reader, boundary string, limits Limits) ([]gotPart, error) {
	m, err := newMultipartReader(r, boundary, limits.orDefaults())
	if err != nil {
		return nil, err
	}
	var parts []gotPart
	for {
		p, err := m.next()
		if errors.Is(err, errNoPart) {
			return parts, nil
		}
		if err != nil {
			return parts, err
		}
		body, err := io.ReadAll(p)
		parts = append(parts, gotPart{p.fields, string(body)})
		if err != nil {
			return parts, err
		}
	}
}

func TestMultipartReader(t *testing.T) {
	dicom := map[string]string{"content-type": "application/dicom"}
	none := map[string]string{}
	for _, test := range []struct {
		name, body string
		want       []gotPart
	}{
		{"two parts", "--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b\r\nContent-Type: application/dicom\r\n\r\ntwo\r\n--b--\r\n",
			[]gotPart{{dicom, "one"}, {dicom, "two"}}},
		{"no line end behind the closing delimiter", "--b\r\n\r\none\r\n--b--", []gotPart{{none, "one"}}},
		{"line feeds alone", "--b\nContent-Type: application/dicom\n\none\n--b\n\ntwo\n--b--\n",
			[]gotPart{{dicom, "one"}, {none, "two"}}},
		{"preamble and epilogue", "a preamble\r\n--bb\r\n\r\n--b\r\n\r\none\r\n--b--\r\nepilogue", []gotPart{{none, "one"}}},
		{"a leading line end", "\r\n--b\r\n\r\none\r\n--b--", []gotPart{{none, "one"}}},
		{"blanks behind a boundary", "--b  \r\n\r\none\r\n--b\t \r\n\r\ntwo\r\n--b-- ", []gotPart{{none, "one"}, {none, "two"}}},
		{"a longer line is content", "--b\r\n\r\none\r\n--bb\r\n--b -\r\n--b--\r\n", []gotPart{{none, "one\r\n--bb\r\n--b -"}}},
		{"a bare line feed before the boundary is content", "--b\r\n\r\none\n--b\r\n--b--", []gotPart{{none, "one\n--b"}}},
		{"empty part", "--b\r\n\r\n\r\n--b\r\n\r\n--b--", []gotPart{{none, ""}, {none, ""}}},
		{"folded and repeated fields", "--b\r\nX: 1\r\n 2\r\nx: 3\r\nbroken\r\nCONTENT-TYPE :  application/dicom \r\n\r\n\r\n--b--",
			[]gotPart{{map[string]string{"x": "1 2", "content-type": "application/dicom"}, ""}}},
		{"no part", "--b--\r\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"at once": strings.NewReader(test.body), "byte by byte": iotest.OneByteReader(strings.NewReader(test.body)),
				"end with the data": iotest.DataErrReader(strings.NewReader(test.body)),
			} {
				got, err := readParts(r, "b", Limits{})
				if err != nil || !reflect.DeepEqual(got, test.want) {
					t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
				}
			}
		})
	}
}

func TestMultipartCutShortAtEveryByte(t *testing.T) {
	const body = "--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b\r\nX: y\r\n\r\ntwo\r\n--b--"
	for n := range len(body) {
		parts, err := readParts(strings.NewReader(body[:n]), "b", Limits{})
		if err == nil {
			t.Fatalf("%q: no error, parts %q", body[:n], parts)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%q: %v", body[:n], err)
		}
	}
}

func TestMultipartPassesOverAPartThatNobodyRead(t *testing.T) {
	m, err := newMultipartReader(strings.NewReader("--b\r\n\r\n"+strings.Repeat("x", 1<<20)+"\r\n--b\r\n\r\ntwo\r\n--b--"), "b", DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.next(); err != nil {
		t.Fatal(err)
	}
	p, err := m.next()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(p); err != nil || string(b) != "two" {
		t.Fatalf("%q %v", b, err)
	}
}

func TestMultipartLimits(t *testing.T) {
	field := "X: " + strings.Repeat("y", 100) + "\r\n"
	many := ""
	for i := range maxPartFields + 5 {
		many += fmt.Sprintf("x%d: y\r\n", i)
	}
	for _, test := range []struct {
		name, boundary, body string
		limits               Limits
	}{
		{"a line of a header", "b", "--b\r\nX: " + strings.Repeat("y", 200<<10), Limits{}},
		{"a header of many lines", "b", "--b\r\n" + strings.Repeat(field, 1000), Limits{}},
		{"a header of many fields", "b", "--b\r\n" + many + "\r\n\r\n--b--", Limits{}},
		{"parts", "b", strings.Repeat("--b\r\n\r\n\r\n", 5) + "--b--", Limits{Parts: 4}},
		{"a preamble", "b", strings.Repeat("line\r\n", 100<<10), Limits{}},
		{"a preamble of one line", "b", strings.Repeat("x", 300<<10), Limits{}},
		{"no boundary", "", "--b--", Limits{}},
		{"a boundary of many characters", strings.Repeat("b", 201), "--b--", Limits{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := readParts(strings.NewReader(test.body), test.boundary, test.limits); !fault.Is(err, fault.Invalid) {
				t.Errorf("%v, want %v", err, fault.Invalid)
			}
		})
	}
}

func TestMultipartPassesTheSendersFailureOn(t *testing.T) {
	broken := errors.New("the line is cut")
	r := io.MultiReader(strings.NewReader("--b\r\n\r\none"), iotest.ErrReader(broken))
	if _, err := readParts(r, "b", Limits{}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// FuzzMultipartReader holds two things: no input makes the reader hang or give
// more than it got, and what the standard library writes comes back as it was.
func FuzzMultipartReader(f *testing.F) {
	f.Add([]byte("--b\r\nContent-Type: application/dicom\r\n\r\none\r\n--b--"), []byte("one\r\n--b"))
	f.Add([]byte("--b\n\none\n--b\n\n"), []byte("\r\n--"))
	f.Add([]byte("--b\r\n\r\n--b \r\n\r\n\r\n--b-"), []byte("\r"))
	f.Fuzz(func(t *testing.T, raw, content []byte) {
		parts, err := readParts(bytes.NewReader(raw), "b", Limits{})
		total := 0
		for _, p := range parts {
			total += len(p.body)
		}
		if total > len(raw) {
			t.Fatalf("%d bytes of %d", total, len(raw))
		}
		slow, slowErr := readParts(iotest.OneByteReader(bytes.NewReader(raw)), "b", Limits{})
		if (err == nil) != (slowErr == nil) || !reflect.DeepEqual(parts, slow) {
			t.Fatalf("at once %q %v, byte by byte %q %v", parts, err, slow, slowErr)
		}

		var body bytes.Buffer
		w := multipart.NewWriter(&body)
		for range 2 {
			p, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
			if err != nil {
				t.Fatal(err)
			}
			p.Write(content)
		}
		w.Close()
		if bytes.Contains(content, []byte(w.Boundary())) {
			return
		}
		got, err := readParts(&body, w.Boundary(), Limits{})
		if err != nil || len(got) != 2 || got[0].body != string(content) || got[1].body != string(content) {
			t.Fatalf("%q: %q %v", content, got, err)
		}
	})
}
