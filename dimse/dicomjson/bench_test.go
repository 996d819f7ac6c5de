package dicomjson_test

import (
	"io"
	"strings"
	"testing"

	"pelago/dimse/dicom"
	"pelago/dimse/dicomjson"
	"pelago/dimse/dimsetest/samples"
)

// BenchmarkSeriesMetadata writes the metadata of a series of 600 instances.
func BenchmarkSeriesMetadata(b *testing.B) {
	for _, name := range []string{"ct/series-ge-head-28/01.dcm", "mr/series-", "enhanced-mr/siemens-xa30/7_0001.dcm"} {
		var header *dicom.Header
		for _, f := range samples.All(b) {
			if header == nil && strings.HasPrefix(f.Name, name) {
				s, err := open(b, f)
				if err != nil {
					b.Fatal(err)
				}
				header = s.header
			}
		}
		b.Run(strings.ReplaceAll(name, "/", "_"), func(b *testing.B) {
			options := dicomjson.Options{
				AvailableSyntax: header.Syntax.UID,
				BulkURI:         func(path string, _ *dicom.Element) string { return "http://127.0.0.1:8080/dicom-web/bulk/" + path },
			}
			b.ReportAllocs()
			for b.Loop() {
				a := dicomjson.NewArray(io.Discard)
				for range 600 {
					if err := a.Add(header.Dataset, options); err != nil {
						b.Fatal(err)
					}
				}
				if err := a.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
