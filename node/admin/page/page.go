package page

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
)

//go:embed index.html page.css page.js icon.svg
var files embed.FS

// Policy is the page's Content-Security-Policy.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// File is one of the page's files.
type File struct {
	Pattern string // of net/http.ServeMux
	Handler http.Handler
}

// Files are the page's files, under the paths by which they name each other.
// Who may read them is for the caller to check.
func Files() []File {
	var all []File
	for _, f := range []struct{ pattern, name, kind string }{
		{"GET /{$}", "index.html", "text/html; charset=utf-8"},
		{"GET /page.css", "page.css", "text/css; charset=utf-8"},
		{"GET /page.js", "page.js", "text/javascript; charset=utf-8"},
		{"GET /icon.svg", "icon.svg", "image/svg+xml"},
	} {
		content, err := files.ReadFile(f.name)
		if err != nil {
			panic(err) // the directive above is wrong
		}
		all = append(all, File{f.pattern, serve(content, f.kind)})
	}
	return all
}

// serve answers with a file that browsers may keep, but ask about each time:
// the next version of the node may have another.
func serve(content []byte, kind string) http.Handler {
	sum := sha256.Sum256(content)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", kind)
		_, _ = w.Write(content) // the client has gone
	})
}
