package web

import (
	"net"
	"net/http"
	"net/url"
	"strings"
)

// baseURL returns scheme://host[/prefix] as the client reached us, from Forwarded
// (RFC 7239), X-Forwarded-* or Host. The nearest proxy to the client wrote the
// first element. Values that are no host or scheme are passed over: what is
// returned goes into URIs of the same client's answer, nowhere else.
func baseURL(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if v := first(r.Header.Get("X-Forwarded-Proto")); isScheme(v) {
		scheme = strings.ToLower(v)
	}
	if v := first(r.Header.Get("X-Forwarded-Host")); isHost(v) {
		host = v
		if port := first(r.Header.Get("X-Forwarded-Port")); isPort(port) && !defaultPort(scheme, port) && !hasPort(host) {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		}
	}
	for _, pair := range strings.Split(first(r.Header.Get("Forwarded")), ";") {
		name, value, _ := strings.Cut(pair, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "proto":
			if isScheme(value) {
				scheme = strings.ToLower(value)
			}
		case "host":
			if isHost(value) {
				host = value
			}
		}
	}
	if !isHost(host) {
		host = "localhost"
	}
	prefix := strings.TrimRight(first(r.Header.Get("X-Forwarded-Prefix")), "/")
	if !isPath(prefix) {
		prefix = ""
	}
	return scheme + "://" + host + prefix
}

// first returns the first element of a comma-separated header value.
func first(v string) string {
	v, _, _ = strings.Cut(v, ",")
	return strings.TrimSpace(v)
}

func isScheme(s string) bool {
	return strings.EqualFold(s, "http") || strings.EqualFold(s, "https")
}

// isHost accepts names, IPv4 and bracketed IPv6 addresses, with or without port.
func isHost(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !isAlnum(c) && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return true
}

func isPort(s string) bool {
	if s == "" || len(s) > 5 {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func defaultPort(scheme, port string) bool {
	return scheme == "http" && port == "80" || scheme == "https" && port == "443"
}

func hasPort(host string) bool {
	_, _, err := net.SplitHostPort(host)
	return err == nil
}

func isPath(s string) bool {
	if s == "" || s[0] != '/' || len(s) > 255 || strings.HasPrefix(s, "//") {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlnum(c) && strings.IndexByte("-._~/", c) < 0 {
			return false
		}
	}
	return true
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// instanceURL returns the retrieve URL under a service root; lower UIDs may be
// empty.
func instanceURL(root, study, series, instance string) string {
	var b strings.Builder
	b.WriteString(root)
	for _, level := range []struct{ name, uid string }{
		{"/studies/", study}, {"/series/", series}, {"/instances/", instance},
	} {
		if level.uid == "" {
			break
		}
		b.WriteString(level.name)
		b.WriteString(url.PathEscape(level.uid))
	}
	return b.String()
}
