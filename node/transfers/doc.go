// Package transfers knows which bytes are on their way between this node and
// others, for operators to look at. A [Registry] is laid around the client and
// the handler of peer calls, so that nobody who moves bytes has to tell it:
// [Registry.Transport] counts the bodies of answers as they are read, and
// [Registry.Handler] those that are written.
//
// It holds no names of patients, studies or series; what is moved is known by
// its [Kind] only. It decides nothing, and what it does not see is not bounded
// by it.
//
// All methods may be called from any goroutine.
package transfers
