#!/bin/bash
# build-kernel.sh [FRAGMENT...]: builds the rig's User-Mode Linux kernel, its modules and vh264enc, and prints the folder they are
# in: ${LENSCAST_RIG:-~/.cache/lenscast-rig}/HASH, by a hash of everything that goes in, so versions stand side by side. What is
# there already is not built again; of several callers at once one builds and the others wait. Progress goes to stderr.
#
# The kernel is Debian's linux-source with patches/, each of which says what it is for. With modules/ and linux lies register-set, the
# bytes that a processor's register set may have on this kernel.
#
# FRAGMENT is a file of kernel options to add, such as kernel-systemd.config. --where as the only argument prints the folder
# without building. Takes about 4 minutes on two idle cores and 2 GB in $TMPDIR; needs no root.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${LENSCAST_RIG:-~/.cache/lenscast-rig}
source_package=linux-source-6.1

where=
[ "${1:-}" = --where ] && { where=1; shift; }
fragments=("$here/kernel.config")
for fragment in "$@"; do fragments+=("$(readlink -f "$fragment")"); done
version=$(dpkg-query -W -f='${Version}' $source_package 2> /dev/null) || {
  echo "$source_package is not installed: run scripts/install-dependencies.sh test" >&2
  exit 1
}
hash=$( (echo "$version"; gcc --version | head -n 1; cat "$0" "${fragments[@]}" "$here"/patches/*.patch "$here"/vh264enc/{Makefile,vh264enc.c}) |
  sha256sum | cut -c1-16)
rig=$cache/$hash
[ -n "$where" ] && { echo "$rig"; exit 0; }

# A folder with this name is complete, because it got the name last.
[ -d "$rig" ] && { echo "$rig"; exit 0; }
mkdir -p "$cache"
exec 9> "$cache/$hash.lock"
flock --nonblock 9 || { echo "rig kernel: somebody else is building it; waiting" >&2; flock 9; }
[ -d "$rig" ] && { echo "$rig"; exit 0; }

started=$SECONDS
say() { echo "rig kernel: $* ($((SECONDS - started)) s)" >&2; }
[[ ${TMPDIR:-} != *[[:space:]:]* ]] || {
  echo "rig kernel: it cannot be built in $TMPDIR: set TMPDIR to a folder without a space or colon" >&2
  exit 1
}
work=$(mktemp -d)
reporter= command=
finish() {
  for pid in $reporter $command; do
    kill "$pid" 2> /dev/null || true
    wait "$pid" 2> /dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
run() { # says nothing unless it fails; in the background, because bash acts on a signal only between commands
  "$@" > "$work/log" 2>&1 9>&- & command=$!
  wait "$command" || { tail -n 40 "$work/log" >&2; say "failed: $*"; exit 1; }
  command=
}

say "building $version in $work, about 4 minutes on two idle cores"
tar -C "$work" -xf /usr/src/$source_package.tar.xz
src=$work/$source_package out=$work/out new=$work/rig
for patch in "$here"/patches/*.patch; do run patch -d "$src" -p1 -i "$patch"; done
um() { run make -s -C "$src" ARCH=um O="$out" "$@"; }
um allnoconfig
# By names without a space, which merge_config.sh takes for two.
options=()
for fragment in "${fragments[@]}"; do
  options+=("$work/options.${#options[@]}")
  cp "$fragment" "${options[-1]}"
done
(cd "$src" && ARCH=um run scripts/kconfig/merge_config.sh -O "$out" "$out/.config" "${options[@]}")
# What has no effect, for want of another option or of a driver in this version, would be missed much later.
grep -hE '^CONFIG_.*=[ym]$' "${fragments[@]}" | while read -r option; do
  grep -qx "$option" "$out/.config" || { say "$option has no effect"; exit 1; }
done
say "configured"
(while for _ in {1..20}; do sleep 1; done; do say "$(find "$out" -name '*.o' | wc -l) objects compiled"; done) > /dev/null 9>&- &
reporter=$!
um -j"$(nproc)" all
um modules_install INSTALL_MOD_PATH="$new/modules" INSTALL_MOD_STRIP=1
cp -r "$here/vh264enc" "$work/vh264enc"
module() { run make -s -C "$out" ARCH=um M="$work/vh264enc" "$@"; }
module modules
module modules_install INSTALL_MOD_PATH="$new/modules" INSTALL_MOD_STRIP=1
strip -o "$new/linux" "$out/linux"
words=$(sed -n 's/^#define HOST_FP_SIZE \([0-9]*\) .*/\1/p' "$out/include/generated/user_constants.h")
echo $((words * 8)) > "$new/register-set"
# These lead back to the build.
find "$new/modules" -type l -delete
depmod -b "$new/modules" "$(make -s -C "$out" ARCH=um kernelrelease)"
mkdir "$cache/$hash.part.$$"
cp -r "$new"/. "$cache/$hash.part.$$"
mv "$cache/$hash.part.$$" "$rig"
say "built $rig"
echo "$rig"
