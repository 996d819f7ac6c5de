package far

// Resident is the memory that a client's blocks take.
func (c *Client) Resident() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mem.used
}

// Objects is how many objects a client remembers.
func (c *Client) Objects() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.objects)
}

// What tests make messages of.
const (
	StreamMagic   = streamMagic
	MessagePart   = messagePart
	MessagePack   = messagePack
	MessageEnd    = messageEnd
	MessageFrame  = messageFrame
	MessageAhead  = messageAhead
	MessageStaged = messageStaged
	MinMemory     = minMemory
	MaxOpenings   = maxOpenings
)

// AppendMessage appends a message.
func AppendMessage(b []byte, kind byte, parts ...[]byte) []byte {
	return appendMessage(b, kind, parts...)
}

// ParseRange reads a range.
func ParseRange(text string, size, unit int64) (from, to int64, err error) {
	return parseRange(text, size, unit)
}
