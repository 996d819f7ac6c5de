package web

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pelago/dimse/dict"
	"pelago/node/archive"
)

// ctSeries stores n copies of a real CT with UIDs of their own in one series.
func (s *site) ctSeries(n int) archive.Ref {
	s.t.Helper()
	file, err := os.ReadFile(samplePath(s.t, "ct/series-ge-head-28/01.dcm"))
	if err != nil {
		s.t.Fatal(err)
	}
	_, data := dataSetOf(s.t, file)
	ref := s.putBytes(dict.ExplicitLittleEndian, data)
	for i := 1; i < n; i++ {
		old := []byte(ref.SOP)
		sop := bytes.Clone(old)
		copy(sop[len(sop)-4:], fmt.Sprintf("%04d", i))
		s.putBytes(dict.ExplicitLittleEndian, bytes.ReplaceAll(data, old, sop))
	}
	return ref
}

// BenchmarkMetadata is the series metadata of 200 and 600 CT: cold makes the
// document from header records, warm sends the one that was kept.
func BenchmarkMetadata(b *testing.B) {
	for _, n := range []int{200, 600} {
		for _, cold := range []bool{true, false} {
			for _, coding := range []string{"gzip", "identity"} {
				b.Run(fmt.Sprintf("instances=%d/cold=%t/%s", n, cold, coding), func(b *testing.B) {
					s := newSite(b, Options{})
					ref := s.ctSeries(n)
					h := s.server.Config.Handler.(*Handler)
					b.ResetTimer()
					for range b.N {
						if cold {
							h.pages = newLRU[string, pieces](DefaultLimits.Documents)
						}
						res := s.get(seriesPath(ref)+"/metadata", "application/dicom+json", "Accept-Encoding", coding)
						m, err := io.Copy(io.Discard, res.Body)
						if err != nil || res.StatusCode != 200 {
							b.Fatal(err, res.StatusCode)
						}
						b.SetBytes(m)
						res.Body.Close()
					}
				})
			}
		}
	}
}

// BenchmarkFrames is 8 clients that read frames, against net/http serving the
// same bytes from a file.
func BenchmarkFrames(b *testing.B) {
	run := func(b *testing.B, client *http.Transport, url, accept string) {
		const clients = 8
		work := make(chan struct{}, b.N)
		for range b.N {
			work <- struct{}{}
		}
		close(work)
		b.ResetTimer()
		var all sync.WaitGroup
		for range clients {
			all.Add(1)
			go func() {
				defer all.Done()
				buf := make([]byte, 256<<10)
				for range work {
					r, _ := http.NewRequest("GET", url, nil)
					r.Header.Set("Accept", accept)
					res, err := client.RoundTrip(r)
					if err != nil {
						b.Error(err)
						return
					}
					n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, res.Body, buf)
					if err != nil || res.StatusCode != 200 || n < 512*512*2 {
						b.Errorf("%d, %d bytes, %v", res.StatusCode, n, err)
					}
					res.Body.Close()
				}
			}()
		}
		all.Wait()
		b.SetBytes(512 * 512 * 2)
	}
	b.Run("frames", func(b *testing.B) {
		s := newSite(b, Options{})
		s.client.MaxIdleConnsPerHost = 8
		ref := s.ctSeries(8)
		run(b, s.client, s.server.URL+instancePath(ref)+"/frames/1", ohifQuoted)
	})
	b.Run("file", func(b *testing.B) {
		dir := b.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "frame"), make([]byte, 512*512*2), 0o600); err != nil {
			b.Fatal(err)
		}
		server := httptest.NewServer(http.FileServer(http.Dir(dir)))
		defer server.Close()
		client := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 8}
		defer client.CloseIdleConnections()
		run(b, client, server.URL+"/frame", "*/*")
	})
}
