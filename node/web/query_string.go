package web

import (
	"net/http"
	"net/url"
	"strings"

	"pelago/cluster/fault"
)

// queryValues reads the query string. Unlike [url.ParseQuery] it splits at the
// ampersand only: accept=multipart/related; type=... is sent with bare
// semicolons by clients that copy a header value into a URL.
func queryValues(r *http.Request) (url.Values, error) {
	values := url.Values{}
	for pair := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err := url.QueryUnescape(name)
		if err == nil {
			value, err = url.QueryUnescape(value)
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "the query string has a broken percent escape")
		}
		values[n] = append(values[n], value)
	}
	return values, nil
}

// queryList returns the values of one parameter, nothing if the query string is
// broken.
func queryList(r *http.Request, name string) []string {
	values, err := queryValues(r)
	if err != nil {
		return nil
	}
	return values[name]
}
