#!/bin/sh
# Shows what go mod tidy would change in the modules of this checkout, and fails if it is anything.
#
# The command's module asks for a released version of the library. Here the library of this
# checkout stands in for it, since that version may not be published yet, or lack what the
# command needs by now.
set -eu
library=github.com/zpipes/zpipes
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
root=$(pwd)
failed=

for dir in $(go list -m -f '{{.Dir}}'); do
	cp "$dir/go.mod" "$tmp/go.mod"
	: >"$tmp/go.sum"
	[ ! -f "$dir/go.sum" ] || grep -v "^$library\(/cluster\)\? v" "$dir/go.sum" >"$tmp/go.sum" || true
	if [ "$dir" != "$root" ]; then
		go mod edit -replace="$library=$root" -replace="$library/cluster=$root/cluster" "$tmp/go.mod"
	fi
	(cd "$dir" && GOWORK=off go mod tidy -diff -modfile="$tmp/go.mod") || {
		echo "tidy: run go mod tidy in $dir" >&2
		failed=1
	}
done
[ -z "$failed" ]
