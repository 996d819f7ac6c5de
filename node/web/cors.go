package web

import (
	"net/http"
	"strings"
)

// What a page from another origin may send and see. The quoted Accept of a
// viewer is not a "simple" header value, so that it asks first; Range and
// If-None-Match are for bulk data and metadata.
const (
	corsMethods = "GET, HEAD, POST, OPTIONS"
	corsHeaders = "Accept, Accept-Encoding, Accept-Language, Authorization, Cache-Control, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, Pelago-After, Pragma, Range, X-Requested-With"
	corsExposed = "Accept-Ranges, Content-Encoding, Content-Length, Content-Location, Content-Range, Content-Type, ETag, Location, Pelago-Written, Retry-After, Warning"
	corsMaxAge  = "86400"
)

// origins is the set of origins that may call.
type origins struct {
	any  bool
	each map[string]bool
}

func newOrigins(list []string) origins {
	o := origins{each: make(map[string]bool, len(list))}
	for _, origin := range list {
		if origin == "*" {
			o.any = true
			continue
		}
		o.each[strings.ToLower(strings.TrimRight(origin, "/"))] = true
	}
	return o
}

// apply sets the response fields for the request's origin and reports whether
// it may call. Without an Origin there is nothing to say.
func (o origins) apply(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if len(o.each) > 0 || o.any {
		w.Header().Add("Vary", "Origin")
	}
	if origin == "" {
		return false
	}
	named := o.each[strings.ToLower(origin)]
	if !named && !o.any {
		return false
	}
	h := w.Header()
	if named {
		// Credentials only for origins that were named: with "*" any page could
		// read the archive through a logged-in user's browser.
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	} else {
		h.Set("Access-Control-Allow-Origin", "*")
	}
	h.Set("Access-Control-Expose-Headers", corsExposed)
	return true
}

// preflight answers a CORS preflight request.
func preflight(w http.ResponseWriter, r *http.Request, allowed bool) {
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Method")
	h.Add("Vary", "Access-Control-Request-Headers")
	if allowed {
		h.Set("Access-Control-Allow-Methods", corsMethods)
		h.Set("Access-Control-Allow-Headers", allowHeaders(r))
		h.Set("Access-Control-Max-Age", corsMaxAge)
		if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
			h.Set("Access-Control-Allow-Private-Network", "true")
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// allowHeaders allows what we read, and whatever else the page names: unknown
// fields are not looked at, and refusing them only breaks viewers that add one.
func allowHeaders(r *http.Request) string {
	asked := strings.Join(r.Header.Values("Access-Control-Request-Headers"), ",")
	if asked == "" || len(asked) > 2048 {
		return corsHeaders
	}
	list := corsHeaders
	for _, name := range strings.Split(asked, ",") {
		name = strings.TrimSpace(name)
		if isToken(name) && !containsFold(corsHeaders, name) {
			list += ", " + name
		}
	}
	return list
}

func containsFold(list, name string) bool {
	for _, item := range strings.Split(list, ", ") {
		if strings.EqualFold(item, name) {
			return true
		}
	}
	return false
}

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
