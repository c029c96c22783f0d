#!/bin/sh
# Releases what is checked out.
#
#	sh scripts/release.sh VERSION
#
# The library comes first, since the others ask for a published version of it: tag VERSION, let the
# go.mod of the module cluster ask for it, tag cluster/VERSION, and so on with the command, which asks
# for both. What is pushed can't be taken back,
# because Go's module proxy keeps it. CONTRIBUTING.md says what to do before.
set -eu
library=github.com/zpipes/zpipes
version=${1:-}

die() {
	echo "release: $1" >&2
	exit 1
}

echo "$version" | grep -Eqx 'v[01]\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?' || die "'$version' is no version such as v0.1.0"
cd "$(dirname "$0")/.."
[ -z "$(git status --porcelain -- . ':!*/go.mod' ':!*/go.sum')" ] || die 'there are changes that are not committed'
tagged() { git rev-parse -q --verify "refs/tags/$1" >/dev/null; }
! tagged "cmd/zpipes/$version" || die "there is a $version already"
branch=$(git symbolic-ref -q --short HEAD) || die 'check out a branch first'
grep -Fq "## [${version#v}]" CHANGELOG.md || die "CHANGELOG.md has no heading [${version#v}]"

# With GOWORK=off the command gets what its users will get: the published library.
export GOWORK=off

# All of this can be repeated, should the network fail half-way.
publish() {
	tagged "$1" || git tag -a -m "$2" "$1"
	git push -q --atomic origin "$branch" "$1"
}

publish "$version" "zpipes $version"
# next MODULE WHAT has a module ask for the published ones, and publishes it.
next() {
	(
		cd "$1"
		for module in $3; do
			go mod edit -require="$module@$version"
		done
		go mod tidy
		go build -o /dev/null .
	)
	git diff --quiet || git commit -qam "$2 asks for $version of the library"
	publish "$1/$version" "$2 $version"
}

next cluster 'The module cluster' "$library"
# Nobody installs these: they use what is checked out, which asks for the new version by now.
for dir in bench torture; do
	(cd "$dir" && go mod tidy)
done
git diff --quiet || git commit -qam "Benchmarks and trials ask for $version of the library"

next cmd/zpipes 'The zpipes command' "$library $library/cluster"
