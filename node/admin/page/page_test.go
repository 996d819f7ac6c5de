package page

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

// everything is the files of the page by path.
func everything(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, f := range Files() {
		path := strings.TrimSuffix(strings.TrimPrefix(f.Pattern, "GET "), "{$}")
		w := httptest.NewRecorder()
		f.Handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("%s: %d", path, w.Code)
		}
		if got := w.Header().Get("Content-Security-Policy"); got != Policy {
			t.Errorf("%s: policy %q", path, got)
		}
		again := httptest.NewRequest("GET", path, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		unchanged := httptest.NewRecorder()
		f.Handler.ServeHTTP(unchanged, again)
		if unchanged.Code != http.StatusNotModified || unchanged.Body.Len() != 0 {
			t.Errorf("%s, unchanged: %d", path, unchanged.Code)
		}
		all[path] = w.Body.String()
	}
	return all
}

func TestThePageNamesOnlyFilesOfItsOwn(t *testing.T) {
	all := everything(t)
	for path, text := range all {
		for _, found := range regexp.MustCompile(`(?:href|src)="([^"#]+)"|url\(([^)]+)\)|@import\s+(\S+)`).FindAllStringSubmatch(text, -1) {
			if _, own := all[found[1]]; !own && found[1] != "/api/status" {
				t.Errorf("%s names %q", path, found[0])
			}
		}
		for _, host := range regexp.MustCompile(`https?://[^"'\s)]+`).FindAllString(text, -1) {
			if host != "http://www.w3.org/2000/svg" { // the name of a vocabulary: nobody asks there
				t.Errorf("%s names %s", path, host)
			}
		}
	}
}

func TestNothingIsInlineAndNothingBecomesMarkup(t *testing.T) {
	all := everything(t)
	for _, bad := range []string{`<style`, ` style="`, ` onclick`, ` onload`, `javascript:`, `<script>`} {
		if strings.Contains(all["/"], bad) {
			t.Errorf("the page has %q, which its policy forbids", bad)
		}
	}
	// innerHTML is only ever compared.
	for _, bad := range []string{`eval(`, `new Function`, `insertAdjacentHTML`, `outerHTML`, `document.write`, `innerHTML =`, `innerHTML=`, `innerHTML +=`} {
		if strings.Contains(all["/page.js"], bad) {
			t.Errorf("the script has %q", bad)
		}
	}
}

func TestEveryElementThatTheScriptFillsIsThere(t *testing.T) {
	all := everything(t)
	ids := regexp.MustCompile(`\$\('([a-z-]+)'\)`).FindAllStringSubmatch(all["/page.js"], -1)
	if len(ids) < 15 {
		t.Fatalf("only %d found", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(all["/"], `id="`+id[1]+`"`) {
			t.Errorf("no element %s", id[1])
		}
	}
}
