package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"pelago/cluster/fault"
)

// poll is how often Wait looks.
const poll = 20 * time.Millisecond

// Page is an open page.
type Page struct {
	browser *Browser
	session string

	mu       sync.Mutex // guards what is below
	troubles []string
}

// Open opens a page and returns once it is there; what it goes on to load may
// still come.
func (b *Browser) Open(ctx context.Context, url string) (*Page, error) {
	var target struct {
		ID string `json:"targetId"`
	}
	if err := b.call(ctx, "", "Target.createTarget", map[string]any{"url": "about:blank"}, &target); err != nil {
		return nil, err
	}
	var session struct {
		ID string `json:"sessionId"`
	}
	if err := b.call(ctx, "", "Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &session); err != nil {
		return nil, err
	}
	p := &Page{browser: b, session: session.ID}
	b.mu.Lock()
	b.events[session.ID] = p.event
	b.mu.Unlock()
	for _, domain := range []string{"Page.enable", "Runtime.enable", "Log.enable", "Network.enable", "Accessibility.enable"} {
		if err := p.call(ctx, domain, nil, nil); err != nil {
			return nil, err
		}
	}
	return p, p.Go(ctx, url)
}

// Go leads the page elsewhere.
func (p *Page) Go(ctx context.Context, url string) error {
	var went struct {
		Text string `json:"errorText"`
	}
	if err := p.call(ctx, "Page.navigate", map[string]any{"url": url}, &went); err != nil {
		return err
	}
	if went.Text != "" {
		return fault.New(fault.Unavailable, "%s: %s", url, went.Text)
	}
	return nil
}

func (p *Page) call(ctx context.Context, method string, params, into any) error {
	return p.browser.call(ctx, p.session, method, params, into)
}

// event keeps what went wrong on the page.
func (p *Page) event(method string, params json.RawMessage) {
	var e struct {
		Entry struct {
			Level, Text, URL string
		} `json:"entry"`
		Details struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
		Type string
		Args []struct{ Description, Value any }
	}
	if json.Unmarshal(params, &e) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case method == "Log.entryAdded" && (e.Entry.Level == "error" || e.Entry.Level == "warning"):
		p.troubles = append(p.troubles, e.Entry.Text+" "+e.Entry.URL)
	case method == "Runtime.exceptionThrown":
		p.troubles = append(p.troubles, e.Details.Text+" "+e.Details.Exception.Description)
	case method == "Runtime.consoleAPICalled" && (e.Type == "error" || e.Type == "warning" || e.Type == "assert"):
		p.troubles = append(p.troubles, fmt.Sprintf("console: %+v", e.Args))
	}
}

// Troubles returns what went wrong on the page since it was last asked: errors
// that it logged or threw, requests that failed, and what its policy refused.
func (p *Page) Troubles() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.troubles
	p.troubles = nil
	return all
}

// Eval computes a JavaScript expression on the page; a promise is waited for.
func (p *Page) Eval(ctx context.Context, expression string, into any) error {
	var got struct {
		Result struct {
			Value json.RawMessage `json:"value"`
		} `json:"result"`
		Details *struct {
			Text      string                       `json:"text"`
			Exception struct{ Description string } `json:"exception"`
		} `json:"exceptionDetails"`
	}
	err := p.call(ctx, "Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got)
	switch {
	case err != nil:
		return err
	case got.Details != nil:
		return fault.New(fault.Invalid, "%s: %s %s", expression, got.Details.Text, got.Details.Exception.Description)
	case into == nil || len(got.Result.Value) == 0:
		return nil
	}
	return json.Unmarshal(got.Result.Value, into)
}

// Wait waits until an expression is true.
func (p *Page) Wait(ctx context.Context, expression string) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		var is bool
		if err := p.Eval(ctx, "Boolean("+expression+")", &is); err != nil && !strings.Contains(err.Error(), "context") {
			return err
		}
		if is {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "%s is not true: %w; %q", expression, ctx.Err(), p.Troubles())
		}
	}
}

// Look sets the width and height of the window, in CSS pixels, and the colour
// scheme that the system is said to prefer: light or dark.
func (p *Page) Look(ctx context.Context, width, height int, scheme string) error {
	err := p.call(ctx, "Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
	}, nil)
	if err != nil {
		return err
	}
	return p.call(ctx, "Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}},
	}, nil)
}

// Screenshot returns a PNG of the whole page.
func (p *Page) Screenshot(ctx context.Context) ([]byte, error) {
	var shot struct {
		Data []byte `json:"data"` // base64, as encoding/json has it
	}
	err := p.call(ctx, "Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	return shot.Data, err
}

// Press presses a key, such as Tab.
func (p *Page) Press(ctx context.Context, key string, code int) error {
	for _, kind := range []string{"keyDown", "keyUp"} {
		if err := p.call(ctx, "Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}, nil); err != nil {
			return err
		}
	}
	return nil
}

// Offline cuts the page off, or lets it back.
func (p *Page) Offline(ctx context.Context, offline bool) error {
	return p.call(ctx, "Network.emulateNetworkConditions", map[string]any{
		"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
	}, nil)
}

// Accessible lists what assistive technology is told, in the order of the page:
// the role of each element and its name, such as "heading Sites".
func (p *Page) Accessible(ctx context.Context) ([]string, error) {
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	if err := p.call(ctx, "Accessibility.getFullAXTree", nil, &tree); err != nil {
		return nil, err
	}
	var all []string
	for _, n := range tree.Nodes {
		if role := fmt.Sprint(n.Role.Value); !n.Ignored && !slices.Contains([]string{"none", "generic", "InlineTextBox"}, role) {
			if name, _ := n.Name.Value.(string); name != "" {
				role += " " + name
			}
			all = append(all, role)
		}
	}
	return all, nil
}
