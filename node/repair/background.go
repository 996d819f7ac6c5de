package repair

import (
	"net/http"

	"pelago/shard/held"
)

// background marks the calls of repair, so that who is asked tells them from those of
// readers, for whom repair holds back.
const background = "Pelago-Background"

// Background marks the calls of a caller as those of repair.
type Background struct{ Calls held.Caller }

// Send implements [held.Caller].
func (b Background) Send(request *http.Request) (*http.Response, error) {
	request.Header.Set(background, "1")
	return b.Calls.Send(request)
}

// IsBackground reports whether a request is repair's: nobody waits for its answer.
func IsBackground(request *http.Request) bool { return request.Header.Get(background) != "" }
