package web

import (
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestParseMediaTakesWhatClientsSend(t *testing.T) {
	octets := func(params ...param) []media { return []media{{kind: typeMultipart, params: params, q: 1}} }
	for _, test := range []struct {
		name, in string
		want     []media
	}{
		{"OHIF quoted", `multipart/related; type="application/octet-stream"; transfer-syntax=*`,
			octets(param{"type", typeOctets}, param{"transfer-syntax", "*"})},
		{"OHIF with omitQuotationForMultipartRequest", `multipart/related; type=application/octet-stream; transfer-syntax=*`,
			octets(param{"type", typeOctets}, param{"transfer-syntax", "*"})},
		{"no blanks", `multipart/related;type=application/octet-stream;transfer-syntax=*`,
			octets(param{"type", typeOctets}, param{"transfer-syntax", "*"})},
		{"quoted star", `multipart/related; type="application/octet-stream"; transfer-syntax="*"`,
			octets(param{"type", typeOctets}, param{"transfer-syntax", "*"})},
		{"parameters inside the quoted type", `multipart/related; type="application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90"`,
			octets(param{"type", typeOctets}, param{"transfer-syntax", "1.2.840.10008.1.2.4.90"})},
		{"upper case and blanks around =", `Multipart/Related ; Type = "Application/DICOM"`,
			octets(param{"type", typeDICOM})},
		{"list with weights", `application/dicom+json;q=0.5, */*; q=0.1`,
			[]media{{kind: typeJSON, q: 0.5}, {kind: "*/*", q: 0.1}}},
		{"comma inside quotes", `multipart/related; type="application/dicom"; boundary="a,b;c", image/png`,
			[]media{{kind: typeMultipart, params: []param{{"type", typeDICOM}, {"boundary", "a,b;c"}}, q: 1}, {kind: "image/png", q: 1}}},
		{"escaped quote", `multipart/related; boundary="a\"b"`,
			[]media{{kind: typeMultipart, params: []param{{"boundary", `a"b`}}, q: 1}}},
		{"plus sign lost in a query string", `application/dicom json`, []media{{kind: typeJSON, q: 1}}},
		{"quote that is never closed", `multipart/related; type="application/dicom`, octets(param{"type", typeDICOM})},
		{"weight out of range counts as one", `image/png;q=7`, []media{{kind: "image/png", q: 1}}},
		{"nothing", ``, nil},
		{"no media type", `,;=,json, ;`, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parseMedia(test.in); !reflect.DeepEqual(got, test.want) {
				t.Errorf("parseMedia(%q)\n got %+v\nwant %+v", test.in, got, test.want)
			}
		})
	}
}

func TestDocumentForm(t *testing.T) {
	for _, test := range []struct {
		name   string
		accept []string
		query  string
		want   document
		ok     bool
	}{
		{"nothing is JSON", nil, "", document{kind: typeJSON}, true},
		{"anything is JSON", []string{"*/*"}, "", document{kind: typeJSON}, true},
		{"DICOM JSON", []string{"application/dicom+json"}, "", document{kind: typeJSON}, true},
		{"plain JSON is tolerated", []string{"application/json"}, "", document{kind: typePlainJSON}, true},
		{"a browser", []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, "", document{kind: typeJSON}, true},
		{"plain XML alone", []string{"application/xml"}, "", document{xml: true, kind: typeXML}, true},
		{"XML multipart", []string{`multipart/related; type="application/dicom+xml"`}, "", document{xml: true, kind: typeXML}, true},
		{"XML multipart unquoted", []string{`multipart/related; type=application/dicom+xml`}, "", document{xml: true, kind: typeXML}, true},
		{"JSON in a multipart is sent bare", []string{`multipart/related; type="application/dicom+json"`}, "", document{kind: typeJSON}, true},
		{"the parameter goes before the header", []string{"application/dicom+xml"}, "accept=application/dicom+json", document{kind: typeJSON}, true},
		{"an unescaped multipart parameter", nil, `accept=multipart/related;type="application/dicom+xml"`, document{xml: true, kind: typeXML}, true},
		{"an unusable parameter leaves the header", []string{"application/dicom+json"}, "accept=image/jpeg", document{kind: typeJSON}, true},
		{"weights decide", []string{"application/dicom+json;q=0.2, application/dicom+xml"}, "", document{xml: true, kind: typeXML}, true},
		{"repeated headers", []string{"image/png", "application/dicom+json"}, "", document{kind: typeJSON}, true},
		{"refused by weight zero", []string{"application/dicom+json;q=0, */*"}, "", document{xml: true, kind: typeXML}, true},
		{"nothing of ours", []string{"image/png"}, "", document{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/x?"+strings.ReplaceAll(test.query, `"`, "%22"), nil)
			r.Header["Accept"] = test.accept
			got, ok := acceptOf(r).document()
			if got != test.want || ok != test.ok {
				t.Errorf("got %+v %t, want %+v %t", got, ok, test.want, test.ok)
			}
		})
	}
}

const (
	jpegLossless = "1.2.840.10008.1.2.4.70"
	jpeg2000     = "1.2.840.10008.1.2.4.90"
)

func TestPixelForm(t *testing.T) {
	const little, implicit, big = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
	for _, test := range []struct {
		name, accept, stored string
		single               bool
		want                 pixelForm
		bad                  bool
	}{
		{"star, native", `multipart/related; type=application/octet-stream; transfer-syntax=*`, implicit, false, pixelForm{true, typeOctets, little}, false},
		{"star, encapsulated", `multipart/related; type="application/octet-stream"; transfer-syntax=*`, jpegLossless, false, pixelForm{true, typeOctets, jpegLossless}, false},
		{"star, big endian", `multipart/related; type="application/octet-stream"; transfer-syntax=*`, big, false, pixelForm{true, typeOctets, big}, false},
		{"none named, big endian is swapped", `multipart/related; type="application/octet-stream"`, big, false, pixelForm{true, typeOctets, little}, false},
		{"none named, with a decoder", `multipart/related; type="application/octet-stream"`, jpegLossless, false, pixelForm{true, typeOctets, little}, false},
		{"none named, without a decoder as stored", `multipart/related; type="application/octet-stream"`, jpeg2000, false, pixelForm{true, typeOctets, jpeg2000}, false},
		{"its own type", `multipart/related; type="image/jpeg"; transfer-syntax=1.2.840.10008.1.2.4.70`, jpegLossless, false, pixelForm{true, "image/jpeg", jpegLossless}, false},
		{"its own type without a syntax", `multipart/related; type="image/jpeg"`, jpegLossless, false, pixelForm{true, "image/jpeg", jpegLossless}, false},
		{"any image", `multipart/related; type="image/*"; transfer-syntax=*`, jpegLossless, false, pixelForm{true, "image/jpeg", jpegLossless}, false},
		{"anything is multipart", `*/*`, jpeg2000, true, pixelForm{true, "image/jp2", jpeg2000}, false},
		{"anything, with a decoder", `*/*`, jpegLossless, true, pixelForm{true, typeOctets, little}, false},
		{"its own type before anything", `multipart/related; type="image/jpeg", */*;q=0.1`, jpegLossless, true, pixelForm{true, "image/jpeg", jpegLossless}, false},
		{"bare for one frame", `application/octet-stream; transfer-syntax=*`, little, true, pixelForm{false, typeOctets, little}, false},
		{"bare for two frames cannot be", `application/octet-stream`, little, false, pixelForm{}, true},
		{"the next of the list", `image/jls, multipart/related; type="application/octet-stream"`, little, true, pixelForm{true, typeOctets, little}, false},
		{"another syntax", `multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90`, jpegLossless, true, pixelForm{}, true},
		{"explicit little endian named, with a decoder", `multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1`, jpegLossless, true, pixelForm{true, typeOctets, little}, false},
		{"explicit little endian named, without a decoder", `multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1`, jpeg2000, true, pixelForm{}, true},
		{"JPEG of native pixels", `image/jpeg`, little, true, pixelForm{}, true},
		{"old name", `multipart/related; type="image/x-jls"`, "1.2.840.10008.1.2.4.80", true, pixelForm{true, "image/jls", "1.2.840.10008.1.2.4.80"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var a acceptable
			a.add([]string{test.accept})
			got, err := a.pixelForm(test.stored, test.single, false, decodable(test.stored))
			if got != test.want || (err != nil) != test.bad {
				t.Errorf("got %+v %v, want %+v", got, err, test.want)
			}
		})
	}
}

func TestTargetSyntax(t *testing.T) {
	const little, implicit, big, deflated = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
	for _, test := range []struct {
		name, stored, want, sent string
		ok                       bool
	}{
		{"star sends what is stored", implicit, "*", implicit, true},
		{"the stored one by name", jpegLossless, jpegLossless, jpegLossless, true},
		{"none named is explicit little endian", big, "", little, true},
		{"none named and deflated", deflated, "", little, true},
		{"none named and a decoder", jpegLossless, "", little, true},
		{"none named and no decoder is as stored", jpeg2000, "", jpeg2000, true},
		{"between uncompressed ones", little, implicit, implicit, true},
		{"to deflated", little, deflated, deflated, true},
		{"decoding", jpegLossless, implicit, implicit, true},
		{"decoding without a decoder", jpeg2000, little, little, false},
		{"encoding is not offered", little, jpegLossless, jpegLossless, false},
		{"unknown", little, "1.2.3", "1.2.3", false},
		{"unknown, but stored so", "1.2.3", "1.2.3", "1.2.3", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if sent, ok := target(test.stored, test.want); sent != test.sent || ok != test.ok {
				t.Errorf("got %s %t, want %s %t", sent, ok, test.sent, test.ok)
			}
		})
	}
}

func TestAcceptsGzip(t *testing.T) {
	for in, want := range map[string]bool{
		"gzip, deflate, br": true, "": false, "br": false, "gzip;q=0": false, "*": true,
		"*;q=0": false, "GZIP ; q=1.0": true, "*, gzip;q=0": false, "identity": false,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept-Encoding", in)
		if got := acceptsGzip(r); got != want {
			t.Errorf("Accept-Encoding %q: %t", in, got)
		}
	}
}

func FuzzParseMedia(f *testing.F) {
	for _, s := range []string{
		`multipart/related; type="application/octet-stream"; transfer-syntax=*`,
		`multipart/related; type=application/octet-stream; transfer-syntax=*, */*;q=0.1`,
		`a/b;c="d\`, `;;;,,,`, `multipart/related; type="a/b; type=\"c/d; type=e/f\""`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list := parseMedia(s)
		if len(list) > maxMediaRanges {
			t.Fatalf("%d ranges", len(list))
		}
		for _, m := range list {
			if !strings.Contains(m.kind, "/") || m.q < 0 || m.q > 1 || len(m.params) > maxMediaParams {
				t.Fatalf("%+v", m)
			}
		}
		var a acceptable
		a.add([]string{s})
		a.document()
		if _, err := a.instanceContainer(true); err == nil && len(a.wanted) == 0 {
			t.Fatal("a container for nobody")
		}
		// What a query string carries must read the same.
		r := httptest.NewRequest("GET", "/?accept="+url.QueryEscape(s), nil)
		var b acceptable
		b.add(queryList(r, "accept"))
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("header %+v, parameter %+v", a, b)
		}
	})
}
