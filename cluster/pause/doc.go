// Package pause waits for a time, or for an event at most so long, which a context may
// cut short.
//
// Loops that try again, look again or make room use it. It owns no goroutine and
// keeps no state, and is pure but for the clock, which a synctest bubble replaces.
package pause
