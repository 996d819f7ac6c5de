package web

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"math"
	"net/http"
	"strconv"
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// The media types of rendered images.
const (
	typeJPEG = "image/jpeg"
	typePNG  = "image/png"
)

// Defaults and limits of rendering.
const (
	defaultQuality = 90
	thumbnailSize  = 128
	maxViewport    = 8192 // pixels a side
)

// renderParams are the query parameters of a rendered resource (PS3.18 §8.3.5).
type renderParams struct {
	frame   int // from 1; 0: the first, or for a thumbnail the middle one
	quality int
	window  *window
	view    viewport
	thumb   bool
}

// window is a linear or other VOI function (PS3.3 C.11.2.1.2, C.11.2.1.3).
type window struct {
	center, width float64
	function      string // LINEAR, LINEAR_EXACT or SIGMOID
}

// viewport is the size of the answer and the region shown in it.
type viewport struct {
	width, height  int     // 0: as the region
	x, y, sw, sh   float64 // region of the source; sw = 0: to the right edge
	flipH, flipV   bool
	hasSourceFrame bool
}

// rendered answers a frame as JPEG or PNG, an encapsulated document or a video
// as it is (PS3.18 §10.4.1.1.3).
func (c *call) rendered() error {
	get, err := c.parameter()
	if err != nil {
		return err
	}
	p, err := parseRenderParams(get)
	if err != nil {
		return err
	}
	if list := c.r.PathValue("frames"); list != "" {
		frames, err := parseFrames(list)
		if err != nil {
			return err
		}
		if len(frames) != 1 {
			return fault.New(fault.Unsupported, "one frame is rendered at a time")
		}
		p.frame = frames[0]
	}
	return c.renderOne(acceptOf(c.r), p)
}

// thumbnail answers a small image of the frame, instance, series or study: of
// its middle (PS3.18 §10.4.1.1.4).
func (c *call) thumbnail() error {
	get, err := c.parameter()
	if err != nil {
		return err
	}
	p, err := parseRenderParams(get)
	if err != nil {
		return err
	}
	p.thumb = true
	if list := c.r.PathValue("frames"); list != "" {
		frames, err := parseFrames(list)
		if err != nil {
			return err
		}
		p.frame = frames[0]
	}
	if p.view.width == 0 {
		p.view.width, p.view.height = thumbnailSize, thumbnailSize
	}
	return c.renderOne(acceptOf(c.r), p)
}

// parameter returns a look-up of the query string's last values.
func (c *call) parameter() (func(string) string, error) {
	values, err := queryValues(c.r)
	if err != nil {
		return nil, err
	}
	return func(name string) string {
		if list := values[name]; len(list) > 0 {
			return strings.TrimSpace(list[len(list)-1])
		}
		return ""
	}, nil
}

// parseRenderParams reads window, viewport and quality.
func parseRenderParams(get func(string) string) (renderParams, error) {
	p := renderParams{quality: defaultQuality}
	if v := get("quality"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 100 {
			return p, fault.New(fault.Invalid, "quality is a number from 1 to 100")
		}
		p.quality = n
	}
	if v := get("window"); v != "" {
		parts := strings.Split(v, ",")
		if len(parts) < 2 || len(parts) > 3 {
			return p, fault.New(fault.Invalid, "window is center,width,function")
		}
		function := "linear"
		if len(parts) == 3 {
			function = parts[2]
		}
		w, err := parseWindow(parts[0], parts[1], function)
		if err != nil {
			return p, err
		}
		p.window = w
	}
	if v := get("viewport"); v != "" {
		var err error
		if p.view, err = parseViewport(strings.Split(v, ",")); err != nil {
			return p, err
		}
	}
	return p, notAllowed(get)
}

// parseWindow reads center, width and function.
func parseWindow(center, width, function string) (*window, error) {
	c, err1 := strconv.ParseFloat(strings.TrimSpace(center), 64)
	w, err2 := strconv.ParseFloat(strings.TrimSpace(width), 64)
	name := map[string]string{"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}[strings.ToLower(strings.TrimSpace(function))]
	if err1 != nil || err2 != nil || !finite(c) || !finite(w) || w <= 0 || name == "" {
		return nil, fault.New(fault.Invalid, "window is center,width,function with a width above 0 and linear, linear-exact or sigmoid")
	}
	return &window{c, w, name}, nil
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// parseViewport reads vw,vh[,sx,sy,sw,sh]; a negative width or height of the
// region flips the image (PS3.18 §8.3.5.1.3).
func parseViewport(parts []string) (viewport, error) {
	bad := fault.New(fault.Invalid, "viewport is width,height[,x,y,width,height] of at most %d pixels a side", maxViewport)
	if len(parts) != 2 && len(parts) != 6 {
		return viewport{}, bad
	}
	f := make([]float64, 6)
	for i, s := range parts {
		s = strings.TrimSpace(s)
		if s == "" && i >= 2 {
			continue
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !finite(v) {
			return viewport{}, bad
		}
		f[i] = v
	}
	if f[0] < 1 || f[1] < 1 || f[0] > maxViewport || f[1] > maxViewport || f[2] < 0 || f[3] < 0 {
		return viewport{}, bad
	}
	return viewport{
		width: int(f[0]), height: int(f[1]), x: f[2], y: f[3], sw: math.Abs(f[4]), sh: math.Abs(f[5]),
		flipH: f[4] < 0, flipV: f[5] < 0, hasSourceFrame: len(parts) == 6,
	}, nil
}

// uriRenderParams reads the same of a WADO-URI request (PS3.18 §9.1.2).
func uriRenderParams(get func(string) string) (renderParams, error) {
	p := renderParams{quality: defaultQuality}
	number := func(name string, high int) (int, error) {
		v := get(name)
		if v == "" {
			return 0, nil
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > high {
			return 0, fault.New(fault.Invalid, "%s is a number from 1 to %d", name, high)
		}
		return n, nil
	}
	var err error
	if p.frame, err = number("frameNumber", math.MaxInt32); err != nil {
		return p, err
	}
	if q, err := number("imageQuality", 100); err != nil {
		return p, err
	} else if q > 0 {
		p.quality = q
	}
	rows, err := number("rows", maxViewport)
	if err != nil {
		return p, err
	}
	columns, err := number("columns", maxViewport)
	if err != nil {
		return p, err
	}
	if rows > 0 || columns > 0 {
		p.view.width, p.view.height = columns, rows
		if rows == 0 {
			p.view.height = maxViewport
		}
		if columns == 0 {
			p.view.width = maxViewport
		}
	}
	if get("region") != "" {
		return p, fault.New(fault.Unsupported, "region is not offered here; use the viewport of /rendered")
	}
	if c, w := get("windowCenter"), get("windowWidth"); c != "" || w != "" {
		if p.window, err = parseWindow(c, w, "linear"); err != nil {
			return p, err
		}
	}
	return p, notAllowed(get)
}

// renderOne renders one frame of what the path names: of a series or study the
// instance in the middle, and only as a thumbnail.
func (c *call) renderOne(asked acceptable, p renderParams) error {
	c.reading(archive.Hint{Frame: max(1, p.frame)})
	refs, err := c.selected()
	if err != nil {
		return err
	}
	if len(refs) > 1 && !p.thumb {
		return fault.New(fault.Unsupported, "a study or series is rendered instance by instance")
	}
	ref := refs[len(refs)/2]
	inst, err := c.reads.Open(c.r.Context(), ref)
	if err != nil {
		return err
	}
	defer inst.Close()
	header := inst.Header()
	if !p.thumb {
		if e := header.Dataset.Get(tagDocument); e != nil {
			return c.sendValue(inst, header.Dataset, e)
		}
		if header.Syntax.Video {
			return c.sendVideo(inst)
		}
	}
	return c.sendRendered(inst, asked, p)
}

// imageType picks JPEG or PNG.
func (a acceptable) imageType() (string, bool) {
	for _, m := range a.wanted {
		kind := m
		if m.kind == typeMultipart {
			kind = media{kind: m.root()}
		}
		if alias, ok := pixelAliases[kind.kind]; ok {
			kind.kind = alias
		}
		switch {
		case kind.matches(typeJPEG) && !a.refuses(typeJPEG):
			return typeJPEG, true
		case kind.matches(typePNG):
			return typePNG, true
		}
	}
	return "", false
}

// sendRendered renders and sends a frame.
func (c *call) sendRendered(inst archive.Instance, asked acceptable, p renderParams) error {
	kind, ok := asked.imageType()
	if !ok {
		return fault.New(fault.Unsupported, "frames are rendered as image/jpeg or image/png")
	}
	table, err := c.frameTable(inst)
	if err != nil {
		return err
	}
	if p.frame == 0 {
		p.frame = 1
		if p.thumb {
			p.frame = max(1, (table.frames.Count+1)/2)
		}
	}
	c.w.Header().Add("Vary", "Accept")
	hash := inst.Hash()
	if c.unchanged(fmt.Sprintf(`"%x-%d-%d-%s-%s"`, hash[:12], p.frame, p.quality, kind, strings.ReplaceAll(p.signature(), ",", "."))) {
		return nil
	}
	body, err := c.rendering(inst, table, p, kind)
	if err != nil {
		return err
	}
	ref := inst.Ref()
	c.w.Header().Set("Content-Location", instanceURL(c.root(), ref.Study, ref.Series, ref.SOP)+"/frames/"+strconv.Itoa(p.frame)+"/rendered")
	c.event.Instances = 1
	return c.sendWhole(http.StatusOK, kind, body)
}

// rendering renders and encodes a frame, within the memory of decoded ones.
func (c *call) rendering(inst archive.Instance, table *frameTable, p renderParams, kind string) ([]byte, error) {
	sh, err := shapeOf(inst.Header().Dataset, c.limits.Pixels)
	if err != nil {
		return nil, err
	}
	// Samples as 32 bits and as stored, and the picture of them.
	weight := int64(sh.rows) * int64(sh.columns) * int64(sh.samples*(4+(sh.allocated+7)/8)+4)
	if err := c.pixelMemory.take(c.r.Context(), weight); err != nil {
		return nil, err
	}
	defer c.pixelMemory.give(weight)
	picture, err := c.render(inst, table, p)
	if err != nil {
		return nil, undecoded(err)
	}
	var body bytes.Buffer
	if kind == typePNG {
		err = png.Encode(&body, picture)
	} else {
		err = jpeg.Encode(&body, picture, &jpeg.Options{Quality: p.quality})
	}
	return body.Bytes(), err
}

// signature tells parameters apart in an entity tag.
func (p renderParams) signature() string {
	w := "-"
	if p.window != nil {
		w = fmt.Sprintf("%g;%g;%s", p.window.center, p.window.width, p.window.function)
	}
	return fmt.Sprintf("%s-%v", w, p.view)
}

// render decodes a frame, applies the grayscale pipeline and the viewport.
func (c *call) render(inst archive.Instance, table *frameTable, p renderParams) (image.Image, error) {
	decoded, err := c.decodeFrame(inst, table, p.frame)
	if err != nil {
		return nil, err
	}
	picture, err := decoded.picture(inst, p.frame, p.window)
	if err != nil {
		return nil, err
	}
	return p.view.apply(picture), nil
}

// Attributes of the image pixel and VOI modules.
const (
	tagSamples        = dict.Tag(0x00280002)
	tagPhotometric    = dict.Tag(0x00280004)
	tagPlanar         = dict.Tag(0x00280006)
	tagRows           = dict.Tag(0x00280010)
	tagColumns        = dict.Tag(0x00280011)
	tagBitsAllocated  = dict.Tag(0x00280100)
	tagBitsStored     = dict.Tag(0x00280101)
	tagHighBit        = dict.Tag(0x00280102)
	tagRepresentation = dict.Tag(0x00280103)
	tagWindowCenter   = dict.Tag(0x00281050)
	tagWindowWidth    = dict.Tag(0x00281051)
	tagVOIFunction    = dict.Tag(0x00281056)
	tagIntercept      = dict.Tag(0x00281052)
	tagSlope          = dict.Tag(0x00281053)
	tagLUTShape       = dict.Tag(0x20500020)
)
