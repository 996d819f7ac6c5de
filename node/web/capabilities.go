package web

import (
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"

	"pelago/cluster/fault"
)

// capability is one resource of the capabilities description.
type capability struct {
	Path    string   `json:"path"`
	Methods []string `json:"methods"`
	Service string   `json:"service"`
	Sends   []string `json:"sends,omitempty"`
	Takes   []string `json:"takes,omitempty"`
}

// Media types of answers, as the capabilities list them.
var (
	sendsDataSets  = []string{typeJSON, `multipart/related; type="application/dicom+xml"`}
	sendsInstances = []string{`multipart/related; type="application/dicom"`, typeDICOM}
	sendsPixels    = []string{`multipart/related; type="application/octet-stream"`, typeOctets}
	sendsRendered  = []string{typeJPEG, typePNG}
)

// resources lists what the handler serves, in the order of PS3.18 §10.
func (h *Handler) resources() []capability {
	const (
		study    = "/studies/{study}"
		series   = study + "/series/{series}"
		instance = series + "/instances/{instance}"
	)
	get := []string{"GET", "HEAD"}
	list := []capability{}
	for _, path := range []string{"/studies", "/series", "/instances", study + "/series", study + "/instances", series + "/instances"} {
		list = append(list, capability{Path: path, Methods: get, Service: "search", Sends: sendsDataSets})
	}
	for _, path := range []string{study, series, instance} {
		list = append(list,
			capability{Path: path, Methods: get, Service: "retrieve", Sends: sendsInstances},
			capability{Path: path + "/metadata", Methods: get, Service: "retrieve", Sends: sendsDataSets},
			capability{Path: path + "/rendered", Methods: get, Service: "retrieve", Sends: sendsRendered},
			capability{Path: path + "/thumbnail", Methods: get, Service: "retrieve", Sends: sendsRendered})
	}
	list = append(list,
		capability{Path: instance + "/frames/{frames}", Methods: get, Service: "retrieve", Sends: sendsPixels},
		capability{Path: instance + "/frames/{frames}/rendered", Methods: get, Service: "retrieve", Sends: sendsRendered},
		capability{Path: instance + "/pixeldata", Methods: get, Service: "retrieve", Sends: sendsPixels},
		capability{Path: instance + "/bulkdata/{path}", Methods: get, Service: "retrieve", Sends: sendsPixels})
	if h.writes != nil && h.takes() == nil {
		takes := []string{`multipart/related; type="application/dicom"`, typeDICOM,
			`multipart/related; type="application/dicom+json"`, `multipart/related; type="application/dicom+xml"`}
		sends := []string{typeJSON, typeXML}
		list = append(list,
			capability{Path: "/studies", Methods: []string{"POST"}, Service: "store", Sends: sends, Takes: takes},
			capability{Path: study, Methods: []string{"POST"}, Service: "store", Sends: sends, Takes: takes})
	}
	return list
}

// capabilities answers the capabilities description (PS3.18 §8.9.1) as WADL or
// as the same facts in JSON.
func (c *call) capabilities() error {
	for _, m := range acceptOf(c.r).wanted {
		switch {
		case m.kind == typePlainJSON, m.kind == typeJSON:
			return c.sendJSON(http.StatusOK, map[string]any{"base": c.root(), "resources": c.resources()})
		case m.matches("application/vnd.sun.wadl+xml"), m.kind == "application/xml", m.kind == "text/xml":
			return c.sendWADL()
		}
	}
	return fault.New(fault.Unsupported, "capabilities are sent as application/vnd.sun.wadl+xml or application/json")
}

// The elements of a WADL document (W3C submission of 31 August 2009).
type (
	wadlApplication struct {
		XMLName   xml.Name      `xml:"http://wadl.dev.java.net/2009/02 application"`
		Resources wadlResources `xml:"resources"`
	}
	wadlResources struct {
		Base     string         `xml:"base,attr"`
		Resource []wadlResource `xml:"resource"`
	}
	wadlResource struct {
		Path   string       `xml:"path,attr"`
		Method []wadlMethod `xml:"method"`
	}
	wadlMethod struct {
		Name     string       `xml:"name,attr"`
		Request  *wadlMessage `xml:"request,omitempty"`
		Response *wadlMessage `xml:"response,omitempty"`
	}
	wadlMessage struct {
		Status         string               `xml:"status,attr,omitempty"`
		Representation []wadlRepresentation `xml:"representation"`
	}
	wadlRepresentation struct {
		MediaType string `xml:"mediaType,attr"`
	}
)

func (c *call) sendWADL() error {
	app := wadlApplication{Resources: wadlResources{Base: c.root()}}
	for _, r := range c.resources() {
		res := wadlResource{Path: strings.TrimPrefix(r.Path, "/")}
		for _, method := range r.Methods {
			m := wadlMethod{Name: method, Response: &wadlMessage{Status: "200"}}
			for _, kind := range r.Sends {
				m.Response.Representation = append(m.Response.Representation, wadlRepresentation{kind})
			}
			if len(r.Takes) > 0 {
				m.Request = &wadlMessage{}
				for _, kind := range r.Takes {
					m.Request.Representation = append(m.Request.Representation, wadlRepresentation{kind})
				}
			}
			res.Method = append(res.Method, m)
		}
		app.Resources.Resource = append(app.Resources.Resource, res)
	}
	body, err := xml.MarshalIndent(app, "", " ")
	if err != nil {
		return err
	}
	return c.sendWhole(http.StatusOK, "application/vnd.sun.wadl+xml", append([]byte(xml.Header), body...))
}

// sendWhole sends a small body that is complete in memory.
func (c *call) sendWhole(status int, contentType string, body []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	if c.r.Method == http.MethodHead {
		return nil
	}
	return writeAll(c.w, body)
}
