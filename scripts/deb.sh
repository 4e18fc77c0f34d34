#!/bin/bash
# deb.sh [TARGET [OPTION of cargo deb...]]: the Debian package of the glasses' programs, for TARGET or this machine. Its path is the
# last line.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
target=${1:-$host}
shift $(($# > 0))
scripts/install-dependencies.sh deb >&2
# The same commit gives the same package.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y Cargo.lock)}

scripts/cross.sh "$target" >&2
cargo run --locked --quiet --example manual -- target/manual "$(date -u -d "@$SOURCE_DATE_EPOCH" +%F)" >&2
exec cargo deb --locked --no-build --no-strip --target "$target" \
  --output "target/$target/debian/" "$@"
