#!/bin/sh
# Makes sure that what zpipes is built with is there: Go, a C compiler, pkg-config and libzmq.
# Installs what is missing with the system's package manager (but never Go), and is silent
# when there is nothing to do.
set -eu

PKG_CONFIG=${PKG_CONFIG:-pkg-config}

die() {
	echo "deps: $1" >&2
	exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# A compiler without the C library's headers is of no use, so ask it for one of them.
has_cc() { echo '#include <stdlib.h>' | ${CC:-$(go env CC)} -E - >/dev/null 2>&1; }

has_pkgconfig() { has "$PKG_CONFIG"; }

has_libzmq() { "$PKG_CONFIG" --atleast-version=4.3 libzmq 2>/dev/null; }

# What the system's package manager calls a compiler, pkg-config and libzmq, how it installs
# them, and what refreshes its lists where a first attempt may fail because they are stale.
refresh=
if has apt-get; then
	cc='gcc libc6-dev' pkgconfig='pkg-config' libzmq='libzmq3-dev'
	refresh='apt-get -qq update'
	install='apt-get -qq install -y --no-install-recommends'
elif has dnf; then
	cc='gcc' pkgconfig='pkgconf-pkg-config' libzmq='zeromq-devel'
	install='dnf -q install -y'
elif has pacman; then
	cc='gcc' pkgconfig='pkgconf' libzmq='zeromq'
	refresh='pacman -Sy'
	install='pacman -S --noconfirm --needed'
elif has apk; then
	cc='gcc musl-dev' pkgconfig='pkgconf' libzmq='zeromq-dev'
	install='apk add -q --no-cache'
elif has zypper; then
	cc='gcc' pkgconfig='pkg-config' libzmq='zeromq-devel'
	install='zypper -q --non-interactive install'
elif has brew; then
	cc='gcc' pkgconfig='pkgconf' libzmq='zeromq'
	install='brew install -q'
else
	cc='a C compiler' pkgconfig='pkg-config' libzmq='libzmq 4.3 or later with its headers'
	install=
fi

has go || die 'Go 1.25 or later is needed: https://go.dev/dl/'
version=$(go env GOVERSION)
minor=${version##*go1.}
minor=${minor%%[!0-9]*}
[ "${minor:-0}" -ge 25 ] || die "Go 1.25 or later is needed, this is $version: https://go.dev/dl/"

missing=
has_cc || missing="$missing, $cc"
has_pkgconfig || missing="$missing, $pkgconfig"
has_libzmq || missing="$missing, $libzmq"
[ -n "$missing" ] || exit 0
missing=${missing#, }
[ -n "$install" ] || die "no package manager known here; please install: $missing"

packages=$(echo "$missing" | tr -d ,)

sudo=
case $install in
brew*) ;; # wants no root
*)
	if [ "$(id -u)" -ne 0 ]; then
		has sudo || die "please run as root: ${refresh:+$refresh && }$install $packages"
		sudo=sudo
	fi
	;;
esac

echo "deps: installing $packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
try() { $sudo env DEBIAN_FRONTEND=noninteractive "$@" </dev/null >"$log" 2>&1; }

# Word splitting is wanted below: these are commands, and lists of packages.
# shellcheck disable=SC2086
try $install $packages || { [ -n "$refresh" ] && try $refresh && try $install $packages; } || {
	cat "$log" >&2
	die "this failed: ${sudo:+$sudo }$install $packages"
}

has_cc || die "there is still no C compiler that works: try $cc"
has_pkgconfig || die "there is still no pkg-config: try $pkgconfig"
has_libzmq || die "libzmq 4.3 or later is needed, pkg-config finds: $("$PKG_CONFIG" --modversion libzmq 2>&1 | tail -n 1)"
