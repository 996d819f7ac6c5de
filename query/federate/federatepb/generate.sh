#!/bin/sh
# Regenerates federate.pb.go: needs protoc (Debian protobuf-compiler); the Go
# plugin is the one that go.mod pins.
set -eu
plugin=$(mktemp)
trap 'rm -f "$plugin"' EXIT
printf '#!/bin/sh\nexec go tool protoc-gen-go "$@"\n' >"$plugin"
chmod +x "$plugin"
protoc --plugin=protoc-gen-go="$plugin" --go_out=. --go_opt=paths=source_relative federate.proto
