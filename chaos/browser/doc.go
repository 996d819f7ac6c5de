// Package browser drives a headless Chromium over its debugging pipe, for tests
// of pages as people see them: layout, colour schemes, policies, what a screen
// reader is told. It needs nothing but the program; there is no driver, no port,
// and no download.
//
// [Start] runs a browser with a profile that is removed at the end; [Browser.Open]
// opens a page; the methods of [Page] look at it and change the window. Each
// waits for its answer; a page belongs to one goroutine. What a page logs as an
// error, throws, or is refused by its content policy is kept for [Page.Troubles].
package browser
