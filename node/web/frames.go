package web

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// maxFrames bounds the frames of one request; a URL of the usual size holds
// about as many.
const maxFrames = 16 << 10

// frames answers /frames/1,2,3 (PS3.18 §10.4.1.1.6).
func (c *call) frames() error {
	numbers, err := parseFrames(c.r.PathValue("frames"))
	if err != nil {
		return err
	}
	c.reading(archive.Hint{Frame: numbers[0]})
	return c.withInstance(func(inst archive.Instance) error { return c.sendFrames(inst, numbers, false) })
}

// parseFrames reads a list of frame numbers from 1, separated by commas.
func parseFrames(list string) ([]int, error) {
	var numbers []int
	for item := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(item))
		if err != nil || n < 1 {
			return nil, fault.New(fault.Invalid, "frames are numbers from 1, separated by commas")
		}
		if len(numbers) == maxFrames {
			return nil, fault.New(fault.Invalid, "over %d frames in one request", maxFrames)
		}
		numbers = append(numbers, n)
	}
	return numbers, nil
}

// withInstance opens the instance that the path names, and closes it.
func (c *call) withInstance(use func(archive.Instance) error) (err error) {
	refs, err := c.selected()
	if err != nil {
		return err
	}
	inst, err := c.reads.Open(c.r.Context(), refs[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inst.Close()) }()
	return use(inst)
}

// sendFrames sends frames of an opened instance. bare prefers one frame without
// multipart where the client takes anything.
func (c *call) sendFrames(inst archive.Instance, numbers []int, bare bool) error {
	table, err := c.frameTable(inst)
	if err != nil {
		return err
	}
	ref := inst.Ref()
	asked := acceptOf(c.r)
	how, err := asked.pixelForm(ref.Syntax, len(numbers) == 1, bare, decodable(ref.Syntax))
	if err != nil {
		return err
	}
	if decodable(ref.Syntax) && how.syntax != ref.Syntax {
		plain, err := c.decode(c.r.Context(), inst, numbers[0])
		switch {
		case err == nil:
			// inst is its caller's to close.
			defer plain.release()
			return c.sendFrames(plain, numbers, bare)
		case !undecodable(err):
			return err
		}
		// What does not decode goes as it is stored, to those who take that.
		if how, err = asked.pixelForm(ref.Syntax, len(numbers) == 1, bare, false); err != nil {
			return err
		}
	}
	sizes := make([]int64, len(numbers))
	for i, n := range numbers {
		if sizes[i], err = table.size(n); err != nil {
			return err
		}
	}
	h := c.w.Header()
	h.Add("Vary", "Accept")
	hash := inst.Hash()
	if c.unchanged(frameTag(hash, numbers, how)) {
		return nil
	}
	src, err := inst.Values()
	if err != nil {
		return err
	}
	stored, _ := dict.Syntax(ref.Syntax)
	swap := !stored.Encapsulated && stored.BigEndian != (how.syntax == dict.ExplicitBigEndian)

	partType := how.kind + "; transfer-syntax=" + how.syntax
	location := instanceURL(c.root(), ref.Study, ref.Series, ref.SOP) + "/frames/"
	if !how.multipart {
		h.Set("Content-Type", partType)
		h.Set("Content-Location", location+strconv.Itoa(numbers[0]))
		h.Set("Content-Length", strconv.FormatInt(sizes[0], 10))
		c.w.WriteHeader(http.StatusOK)
		if c.r.Method == http.MethodHead {
			return nil
		}
		c.event.Instances = 1
		return table.send(c.w, src, numbers[0], swap, c.buffers)
	}

	parts := newMultipartWriter()
	heads := make([][]byte, len(numbers))
	total := int64(len(parts.tail()))
	for i, n := range numbers {
		heads[i] = parts.head(partType, location+strconv.Itoa(n))
		total += int64(len(heads[i])) + sizes[i]
	}
	h.Set("Content-Type", parts.contentType(how.kind))
	h.Set("Content-Length", strconv.FormatInt(total, 10))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	for i, n := range numbers {
		if err := writeAll(c.w, heads[i]); err != nil {
			return err
		}
		if err := table.send(c.w, src, n, swap, c.buffers); err != nil {
			return err
		}
	}
	c.event.Instances = 1
	return writeAll(c.w, parts.tail())
}

// frameTag returns the entity tag of frames in a form. It holds no comma: the
// lists of If-None-Match are split at them.
func frameTag(hash [32]byte, numbers []int, how pixelForm) string {
	sum := fnv.New64a()
	for _, n := range numbers {
		fmt.Fprint(sum, n, " ")
	}
	return fmt.Sprintf(`"%x-%x-%s-%t"`, hash[:12], sum.Sum64(), how.syntax, how.multipart)
}

// unchanged sets the entity tag and answers 304 if the client has it already.
// Clients ask again each time: what was deleted must not live on in a browser.
func (c *call) unchanged(tag string) bool {
	h := c.w.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	for _, line := range c.r.Header.Values("If-None-Match") {
		for item := range strings.SplitSeq(line, ",") {
			item = strings.TrimPrefix(strings.TrimSpace(item), "W/")
			if item == "*" || item == strings.TrimPrefix(tag, "W/") {
				c.w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}
