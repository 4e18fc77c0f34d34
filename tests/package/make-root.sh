#!/bin/bash
# make-root.sh: makes a root file system of Debian 12 for this machine's architecture that holds a minimal system and what our package
# depends on, nothing else, and prints its folder: ${LENSCAST_ROOTS:-~/.cache/lenscast-roots}/HASH, by a hash of what goes in and
# the month, so that Debian's updates come in. What is there already is not made again; of several callers at once one makes it and
# the others wait. Progress goes to stderr. About 40 seconds and 750 MB; needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${LENSCAST_ROOTS:-~/.cache/lenscast-roots}
depends=$(python3 -c '
import re, tomllib
deb = tomllib.load(open("Cargo.toml", "rb"))["package"]["metadata"]["deb"]
print(",".join(re.split("[ (|]", name.strip())[0] for name in deb["depends"].split(",")))')
hash=$( (cat tests/package/make-root.sh scripts/debian-root.sh; echo "$depends"; date -u +%Y-%m) | sha256sum | cut -c1-16)
root=$cache/$hash

# A folder with this name is complete, because it got the name last.
[ -d "$root" ] && { echo "$root"; exit 0; }
mkdir -p "$cache"
exec 9> "$root.lock"
flock 9
[ -d "$root" ] && { echo "$root"; exit 0; }
[ "$(id -u)" -eq 0 ] || { echo "a root file system can only be made by root" >&2; exit 1; }
log=$(mktemp)
trap 'rm -rf --one-file-system "$root.part" "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
rm -rf --one-file-system "$root.part"
echo "package tests: making a root file system, about 40 seconds" >&2
scripts/debian-root.sh "$root.part" --mode=root --variant=minbase --include="$depends" > "$log" 2>&1 9>&- || {
  tail -n 40 "$log" >&2
  exit 1
}
mv "$root.part" "$root"
echo "$root"
