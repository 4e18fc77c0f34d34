#!/bin/bash
# deb.sh [--profile PROFILE] [TARGET [OPTION of cargo deb...]]: the Debian package of the glasses' programs, for TARGET or this machine,
# built in release or PROFILE. Its path is the last line. Of several callers at once one works and the others wait. With
# MANUAL_PROFILE=ci what writes the manual pages is built like the package that tests install, else in dev.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=release
[ "${1:-}" != --profile ] || { profile=$2; shift 2; }
host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
shift $(($# > 0))
scripts/install-dependencies.sh deb >&2
# The same commit gives the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y Cargo.lock)}

mkdir -p target
exec 9> "target/deb-$target.lock"
flock 9
scripts/cross.sh "$target" cargo build --locked --profile "$profile" --target "$target" --bin lenscastd --bin lenscastctl >&2
manual=()
[ -z "${MANUAL_PROFILE:-}" ] || manual=(--profile "$MANUAL_PROFILE" --target "$host")
cargo run --locked --quiet "${manual[@]}" --example manual -- target/manual "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)" >&2
packaging/third-party.py target/third-party.txt >&2
exec cargo deb --locked --no-build --no-strip --profile "$profile" --target "$target" \
  --output "target/$target/debian/" "$@"
