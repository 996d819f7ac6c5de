package web

import (
	"strings"

	"pelago/cluster/fault"
	"pelago/dimse/dict"
	"pelago/node/archive"
)

// wadoURI answers /wado?requestType=WADO&objectUID=… (PS3.18 §9). Study and
// series UID may be missing. application/dicom is the default; images are
// rendered where the request says so.
func (c *call) wadoURI() error {
	values, err := queryValues(c.r)
	if err != nil {
		return err
	}
	get := func(name string) string {
		for given, list := range values {
			if strings.EqualFold(given, name) {
				return strings.TrimSpace(list[len(list)-1])
			}
		}
		return ""
	}
	if !strings.EqualFold(get("requestType"), "WADO") {
		return fault.New(fault.Invalid, "requestType must be WADO")
	}
	c.event.Study, c.event.Series, c.event.Instance = get("studyUID"), get("seriesUID"), get("objectUID")
	if c.event.Instance == "" {
		return fault.New(fault.Invalid, "objectUID is missing")
	}
	for _, uid := range []string{c.event.Study, c.event.Series, c.event.Instance} {
		if uid != "" && !validUID(uid) {
			return fault.New(fault.Invalid, "a UID has over 64 or unprintable characters")
		}
	}
	if strings.EqualFold(get("anonymize"), "yes") {
		return fault.New(fault.Unsupported, "anonymize is not offered")
	}
	asked := acceptable{}
	asked.add([]string{get("contentType")})
	if len(asked.wanted) == 0 {
		asked = acceptOf(c.r)
	}
	for _, m := range asked.wanted {
		switch {
		case m.matches(typeDICOM):
			return c.wadoInstance(get("transferSyntax"))
		case m.matches(typeJPEG) || m.matches(typePNG):
			return c.wadoRendered(asked, get)
		}
	}
	return fault.New(fault.Unsupported, "an object is sent as application/dicom, image/jpeg or image/png")
}

// wadoInstance sends the one instance as a Part 10 file.
func (c *call) wadoInstance(syntax string) error {
	c.reading(archive.Hint{Whole: true})
	refs, err := c.list(c.event.Study, c.event.Series, c.event.Instance)
	if err != nil {
		return err
	}
	if syntax != "" && syntax != "*" {
		if _, known := dict.Syntax(syntax); !known && syntax != refs[0].Syntax {
			return fault.New(fault.Unsupported, "unknown transfer syntax")
		}
	}
	if err := c.send(refs[:1], container{syntaxes: []string{syntax}}); err != nil {
		return err
	}
	return nil
}

// wadoRendered sends a rendered frame under WADO-URI's names of the parameters.
func (c *call) wadoRendered(asked acceptable, get func(string) string) error {
	p, err := uriRenderParams(get)
	if err != nil {
		return err
	}
	return c.renderOne(asked, p)
}

// notAllowed lists parameters of WADO-URI that would change the image and that
// are not offered: passing over them would show something else than asked for.
func notAllowed(get func(string) string) error {
	for _, name := range []string{"presentationUID", "presentationSeriesUID"} {
		if get(name) != "" {
			return fault.New(fault.Unsupported, "%s is not offered", name)
		}
	}
	return nil
}
