//go:build !linux

package staging

import "github.com/cockroachdb/pebble/v2/vfs"

// startWriteback does nothing where there is no call for it: Commit's fdatasync
// writes everything.
func (l *Log) startWriteback(*segment, int64, int64) error { return nil }

// onlyName reports whether a file is known to have one name alone. Files in
// memory have.
func onlyName(info vfs.FileInfo) bool { return info.Sys() == nil }

// forgetCached does nothing where there is no call for it.
func forgetCached(vfs.File) {}
