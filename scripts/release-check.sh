#!/bin/sh
# Rehearses a release of what is committed, up to the user who installs it.
#
#	sh scripts/release-check.sh VERSION
#
# A repository in a temporary directory stands in for the one on GitHub, where scripts/release.sh
# releases VERSION. Go fetches it from there, as Go's module proxy would, into a proxy made of
# files; and in empty directories, with an empty module cache and only that proxy, users add the
# library to a module, run what README.md and doc.go show, and install the command.
set -eu
library=github.com/zpipes/zpipes
version=$1
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
receiver=
trap 'kill $receiver 2>/dev/null || true; chmod -R u+w "$tmp"; rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

say() { echo "release-check: $1"; }
die() {
	say "$1" >&2
	exit 1
}

[ -z "$(git status --porcelain)" ] || say 'what is not committed is not checked'

# The repository. HEAD may be on no branch.
git init -q --bare "$tmp/origin"
git push -q "$tmp/origin" HEAD:refs/heads/main
git clone -q -b main "$tmp/origin" "$tmp/checkout"

# Modules of others come from the module cache, which is filled in the ordinary way first. The sums
# in our go.sum files vouch for them, so the sum database need not be asked. -trimpath lets what was
# compiled for one module cache serve the next.
(cd "$tmp/checkout" && go mod download && git checkout -q .)
proxy=file://$tmp/proxy/cache/download,file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY) # the last for what is not here
export GOSUMDB=off GOFLAGS="-buildvcs=false -modcacherw -trimpath" GONOPROXY= GOPRIVATE=

# What git and Go take for GitHub from here on, and who commits there.
export GIT_CONFIG_COUNT=3 \
	GIT_CONFIG_KEY_0="url.file://$tmp/origin.insteadOf" GIT_CONFIG_VALUE_0="https://$library" \
	GIT_CONFIG_KEY_1=commit.gpgSign GIT_CONFIG_VALUE_1=false \
	GIT_CONFIG_KEY_2=tag.gpgSign GIT_CONFIG_VALUE_2=false \
	GIT_AUTHOR_NAME=release-check GIT_AUTHOR_EMAIL=release-check@localhost \
	GIT_COMMITTER_NAME=release-check GIT_COMMITTER_EMAIL=release-check@localhost

say "releasing $version"
cd "$tmp/checkout"
if ! grep -Fq "## [${version#v}]" CHANGELOG.md; then
	sed "s/^## \[Unreleased\]/## [${version#v}]/" CHANGELOG.md >"$tmp/changelog"
	cp "$tmp/changelog" CHANGELOG.md
	git commit -qam "Changelog of $version"
fi
# What a releaser fetches straight from the repository, and with that Go's proxy, is what all others get.
publish() { GOMODCACHE=$tmp/proxy GOPROXY=$proxy GONOPROXY=$library "$@"; }
publish sh scripts/release.sh "$version"
(cd "$tmp" && publish go mod download "$library/cmd/zpipes@$version")

export GOWORK=off GOPROXY="$proxy" GOMODCACHE="$tmp/cache" GOBIN="$tmp/bin"

mkdir "$tmp/built"
say 'go build of each module, without the workspace'
for dir in . bench cmd/zpipes torture scripts/snippets; do
	(cd "$dir" && go build -o "$tmp/built/" ./...)
done
(cd cluster && go build ./...) # in which there is no program

say "go get $library@$version"
rm -rf "$GOMODCACHE" # the builds above have filled it
mkdir "$tmp/user"
cd "$tmp/user"
go mod init example.com/user 2>/dev/null
go get "$library@$version"
sums=$(cut -d ' ' -f 1 go.sum | sort -u | tr '\n' ' ')
say "what it brings with it: $sums"
for module in $sums; do
	case $module in
	"$library" | github.com/pebbe/zmq4 | golang.org/x/*) ;;
	*) die "the library needs $module now" ;;
	esac
done

say 'the code of README.md and doc.go'
(cd "$tmp/checkout/scripts/snippets" && go run . "$tmp/checkout" "$tmp/user")
go mod tidy
go vet ./...
go test ./test
go build -o "$tmp/bin/" ./...
"$tmp/bin/readme"
[ "$("$tmp/bin/doc")" = hello ] || die 'the code of doc.go does not print hello'
[ "$("$tmp/bin/main")" = "$(printf 'hello %d\n' 0 1 2)" ] || die 'the first program of README.md does not print hello 0 to 2'
"$tmp/bin/receiver" >"$tmp/received" &
receiver=$!
echo one | "$tmp/bin/sender"
echo two | "$tmp/bin/sender" # is served when all of one is printed
kill $receiver
[ "$(head -n 1 "$tmp/received")" = one ] || die 'the receiver of README.md does not print what the sender sends'

say "go install $library/cmd/zpipes@$version"
cd "$tmp"
go install "$library/cmd/zpipes@$version"
told=$("$tmp/bin/zpipes" --version)
case $told in
"zpipes $version, "*) ;;
*) die "zpipes --version tells: $told" ;;
esac

say "$version can be installed, and what the documents show works"
