#!/bin/sh
# Sends a directory through a pipe from one process to another, and compares the sums of both ends.
#
#	sh scripts/demo.sh ZPIPES DIRECTORY
#
# ZPIPES is the zpipes command.
set -eu
zpipes=$1
dir=$2
sum=$(command -v sha256sum || echo shasum -a 256)
tmp=$(mktemp -d)
broker=
export ZPIPES_BROKER="demo-$$"
trap 'kill $broker 2>/dev/null || true; rm -rf "$tmp"' EXIT
show() { printf '\033[1m$ %s\033[0m\n' "$1"; }
[ -t 1 ] || show() { printf '$ %s\n' "$1"; }

show 'zpipes broker &'
"$zpipes" broker --log-level warn >"$tmp/broker" &
broker=$!

show 'zpipes read archive | sha256sum &'
("$zpipes" read archive; echo $? >"$tmp/status") | $sum >"$tmp/read" &
reader=$!

show "tar c $dir | zpipes write archive"
start=$(date +%s.%N)
{ tar c -C "$dir" . | tee /dev/fd/3 | "$zpipes" write archive 3>&-; } 3>&1 >&2 | $sum >"$tmp/written"
wait $reader
end=$(date +%s.%N)

show 'zpipes ping'
"$zpipes" ping

read -r written _ <"$tmp/written"
read -r got _ <"$tmp/read"
read -r status <"$tmp/status"
printf '\n  written  %s\n  read     %s\n\n' "$written" "$got"
if [ "$written" != "$got" ] || [ "$status" != 0 ]; then
	echo "What was read is not what was written." >&2
	exit 1
fi
bytes=$("$zpipes" ls --json | sed -n 's/.*"bytes_out": \([0-9]*\),*/\1/p' | head -1)
awk -v bytes="$bytes" -v s="$start" -v e="$end" 'BEGIN {
	printf "The same to the last byte: %.1f MB in %.2f s through three processes, and no temporary file.\n", bytes / 1e6, e - s }'
