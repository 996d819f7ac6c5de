package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/admin"
	"pelago/node/datadir"
)

// target says which node a command is for.
type target struct {
	Data string `help:"Data directory of the node on this machine." default:"pelago-data" env:"PELAGO_DATA"`
	HTTP string `name:"http" help:"Base URL of the node's web face, instead of --data; the token or user:password comes from PELAGO_PASSWORD."`
	JSON bool   `name:"json" help:"Print JSON."`
}

// client calls a node's API.
type client struct {
	base      string
	http      *http.Client
	authorize func(*http.Request)
	dicom, ae string // of a node found by its data directory
}

// node finds the node.
func (t target) node(e *env) (*client, error) {
	if t.HTTP != "" {
		base, err := url.Parse(t.HTTP)
		if err != nil || base.Host == "" {
			return nil, fault.New(fault.Invalid, "--http: %q is no URL", t.HTTP)
		}
		c := &client{base: strings.TrimRight(t.HTTP, "/"), http: http.DefaultClient, authorize: func(*http.Request) {}}
		for _, entry := range e.environ {
			secret, ok := strings.CutPrefix(entry, "PELAGO_PASSWORD=")
			if !ok {
				continue
			}
			if user, password, ok := strings.Cut(secret, ":"); ok {
				c.authorize = func(r *http.Request) { r.SetBasicAuth(user, password) }
			} else {
				c.authorize = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) }
			}
		}
		return c, nil
	}
	n, err := datadir.Find(t.Data)
	if err != nil {
		return nil, err
	}
	if n.HTTP == "" {
		return nil, fault.New(fault.Unavailable, "the node on %s serves no web port", t.Data)
	}
	return &client{
		base: n.HTTP, dicom: n.DICOM, ae: n.AE, http: pinned(n.Certificate),
		authorize: func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+n.Token) },
	}, nil
}

// pinned is an HTTP client that takes a server for the one whose certificate has
// a SHA-256, whatever name it is made out for: the data directory says which.
func pinned(certificate string) *http.Client {
	if certificate == "" {
		return http.DefaultClient
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies more
		VerifyConnection: func(state tls.ConnectionState) error {
			sum := sha256.Sum256(state.PeerCertificates[0].Raw)
			if hex.EncodeToString(sum[:]) != certificate {
				return fault.New(fault.Denied, "another certificate than the node's own")
			}
			return nil
		},
	}
	return &http.Client{Transport: transport}
}

// errNoAnswer says that nobody was reached at all.
var errNoAnswer = errors.New("the node does not answer")

// do sends a request; answers of 400 and above are errors of their kind.
func (c *client) do(ctx context.Context, method, path string, body any, header http.Header) (*http.Response, error) {
	var sent io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		sent = b
	default:
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(encoded)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, sent)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	if sent != nil && r.Header.Get("Content-Type") == "" {
		r.Header.Set("Content-Type", "application/json")
	}
	c.authorize(r)
	answer, err := c.http.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fault.New(fault.Unavailable, "%w: %w", errNoAnswer, err)
	}
	if answer.StatusCode >= 400 {
		defer answer.Body.Close()
		return nil, refusal(answer)
	}
	return answer, nil
}

// kinds turns an HTTP status back into a kind.
var kinds = map[int]fault.Kind{
	http.StatusBadRequest: fault.Invalid, http.StatusUnauthorized: fault.Denied, http.StatusForbidden: fault.Denied,
	http.StatusNotFound: fault.NotFound, http.StatusConflict: fault.Conflict,
	http.StatusInsufficientStorage: fault.Full, http.StatusServiceUnavailable: fault.Unavailable,
}

func refusal(answer *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return err
	}
	var p struct {
		Error string `json:"error"`
	}
	text := strings.TrimSpace(string(b))
	if json.Unmarshal(b, &p) == nil && p.Error != "" {
		text = p.Error
	} else if reason := storeRefusal(b); reason != "" {
		text = reason
		if why := warningText(answer.Header.Get("Warning")); why != "" {
			text = why + " (" + reason + ")"
		}
	}
	if text == "" {
		text = answer.Status
	}
	return fault.New(kinds[answer.StatusCode], "%s", text)
}

// get reads a JSON answer.
func (c *client) get(ctx context.Context, path string, into any) error {
	return c.call(ctx, http.MethodGet, path, nil, into)
}

// call sends a request and reads a JSON answer, if one is wanted.
func (c *client) call(ctx context.Context, method, path string, body, into any) error {
	answer, err := c.do(ctx, method, path, body, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if into == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	return json.NewDecoder(answer.Body).Decode(into)
}

// follow reads a stream of progress to its end.
func (c *client) follow(ctx context.Context, path string, body any, show func(admin.Progress)) (admin.Progress, error) {
	answer, err := c.do(ctx, http.MethodPost, path, body, nil)
	if err != nil {
		return admin.Progress{}, err
	}
	defer answer.Body.Close()
	d := json.NewDecoder(answer.Body)
	for {
		var p admin.Progress
		if err := d.Decode(&p); err != nil {
			return p, fault.New(fault.Unavailable, "the node went away in the middle: %w", err)
		}
		if !p.Done {
			show(p)
			continue
		}
		if p.Error != "" {
			return p, fault.New(fault.Other, "%s", p.Error)
		}
		return p, nil
	}
}

// printJSON prints a value as indented JSON.
func printJSON(w io.Writer, v any) error {
	out := json.NewEncoder(w)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

// table prints rows in columns, below their heads. Control characters, which a
// sender may have put into any text, must not reach the terminal.
func table(w io.Writer, head []string, rows [][]string) error {
	out := tabwriter.NewWriter(w, 2, 8, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.Map(printable, cell)
		}
		fmt.Fprintln(out, strings.Join(cells, "\t"))
	}
	return out.Flush()
}

func printable(r rune) rune {
	if unicode.IsControl(r) {
		return unicode.ReplacementChar
	}
	return r
}

// size prints bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n), ""
	for _, suffix = range []string{"KiB", "MiB", "GiB", "TiB", "PiB"} {
		value /= unit
		if value < unit {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", value, suffix)
}

// isTerminal reports whether progress can be drawn on a file.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// warningText returns the words of a Warning header field (RFC 7234 §5.5).
func warningText(field string) string {
	_, quoted, _ := strings.Cut(field, `"`)
	text, _, _ := strings.Cut(quoted, `"`)
	return text
}

// storeRefusal finds the reason in a STOW-RS answer (PS3.18 table 10.5.3-2).
func storeRefusal(b []byte) string {
	var answer map[string]struct {
		Value []match `json:"Value"`
	}
	if json.Unmarshal(b, &answer) != nil {
		return ""
	}
	for _, failed := range answer[fmt.Sprintf("%08X", uint32(dict.FailedSOPSequence))].Value {
		if reason := failed.first(dict.FailureReason); reason != "" {
			if n, err := strconv.ParseUint(reason, 10, 16); err == nil {
				return fmt.Sprintf("status %04X", n)
			}
		}
	}
	return ""
}
