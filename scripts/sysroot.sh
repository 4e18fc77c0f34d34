#!/bin/bash
# sysroot.sh ARCHITECTURE [--where]: makes what a program for another of Debian's architectures is linked against, the GStreamer of
# Debian 12 among it, and prints its folder: ${LENSCAST_SYSROOT:-~/.cache/lenscast-sysroot}/HASH, by a hash of everything that
# goes in. What is there already is not made again; of several callers at once one makes it and the others wait. Progress goes to
# stderr. --where prints the folder without making it. Takes about 20 seconds and 300 MB; needs mmdebstrap, but no root.
#
# The packages are only unpacked, and beside the system's own: installed for two architectures, GStreamer's development
# packages remove each other.
set -euo pipefail
cd "$(dirname "$0")/.."
architecture=${1:?architecture, such as arm64}
cache=${LENSCAST_SYSROOT:-~/.cache/lenscast-sysroot}
packages=libc6-dev,libgcc-12-dev,libgstreamer1.0-dev,libgstreamer-plugins-base1.0-dev

hash=$( (cat scripts/sysroot.sh; echo "$architecture") | sha256sum | cut -c1-16)
sysroot=$cache/$hash
[ "${2:-}" = --where ] && { echo "$sysroot"; exit 0; }

# A folder with this name is complete, because it got the name last.
[ -d "$sysroot" ] && { echo "$sysroot"; exit 0; }
mkdir -p "$cache"
exec 9> "$cache/$hash.lock"
flock --nonblock 9 || { echo "sysroot: somebody else is making it; waiting" >&2; flock 9; }
[ -d "$sysroot" ] && { echo "$sysroot"; exit 0; }

started=$SECONDS
part=$cache/$hash.part.$$
log=$(mktemp)
trap 'rm -rf "$part" "$log"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
echo "sysroot: fetching Debian packages for $architecture, about 20 seconds" >&2
scripts/debian-root.sh "$part" --variant=extract --architectures="$architecture" --skip=check/qemu --include="$packages" \
  > "$log" 2>&1 9>&- || {
  tail -n 40 "$log" >&2
  echo "sysroot: failed" >&2
  exit 1
}
# Neither is for the linker.
rm -rf "$part"/usr/share/{doc,man,locale} "$part"/dev
mv "$part" "$sysroot"
echo "sysroot: made $sysroot ($((SECONDS - started)) s)" >&2
echo "$sysroot"
