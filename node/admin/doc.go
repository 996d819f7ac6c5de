// Package admin is the node's face for operators and their tools: /api/ for the
// command line, the page at /, /metrics for Prometheus, /healthz and /readyz for whoever
// watches the process, and the login that it shares with the DICOMweb face.
//
// Reading needs a login wherever the web face does. Changing anything needs
// the node's token, which only those can read who can read the data directory,
// or a user's password: a page in somebody's browser that reaches the loopback
// port must not delete a study.
package admin
