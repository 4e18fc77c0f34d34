#!/bin/bash
# fuzz.sh SECONDS [TARGET...]: fuzzes each target of fuzz/ (or these) for this many seconds, one after another, and
# sums up. New inputs are in fuzz/target/corpus/TARGET, failures in fuzz/artifacts/TARGET. Fails if there were any.
# fuzz.sh keep [TARGET...]: copies new inputs that reach new code into fuzz/corpus, within its bounds.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:?seconds, or keep}
shift
[ $# -gt 0 ] || set -- $(cd fuzz/targets && ls | sed 's/\.rs$//')

# For the reason see fuzz/README.md.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --fuzz-dir fuzz >&2
programs=fuzz/target/$(rustc -vV | sed -n 's/^host: //p')/release
export ASAN_OPTIONS=detect_odr_violation=0
# A peer's claims must not make the program take this much memory or time.
limits=(-timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=64)

keep() {
  local most=50 bytes=100000 kept=fuzz/corpus/$1 found
  found=$(mktemp -d)
  "$programs/$1" -set_cover_merge=1 "${limits[@]}" "$found" "$kept" "fuzz/target/corpus/$1" 2> "$found.log"
  rm "$found.log"
  for file in $(find "$found" -type f -printf '%s %p\n' | sort -n | cut -d' ' -f2); do
    [ "$(find "$kept" -type f | wc -l)" -lt $most ] || break
    [ $(($(du -sb "$kept" | cut -f1) + $(stat -c %s "$file"))) -lt $bytes ] || break
    for other in "$kept"/*; do
      cmp -s "$file" "$other" && continue 2
    done
    cp "$file" "$kept/$(sha1sum < "$file" | cut -c1-16)"
  done
  rm -r "$found"
  echo "$1: $(find "$kept" -type f | wc -l) files, $(du -sb "$kept" | cut -f1) bytes"
}

if [ "$what" = keep ]; then
  for target in "$@"; do
    keep "$target"
  done
  exit
fi

failed=0
printf '%-18s %12s %8s %8s %8s\n' target executions per_s new crashes
for target in "$@"; do
  new=fuzz/target/corpus/$target artifacts=fuzz/artifacts/$target log=fuzz/target/$target.log
  mkdir -p "$new" "$artifacts"
  options=("${limits[@]}" -max_total_time="$what" -print_final_stats=1 -artifact_prefix="$artifacts/")
  for words in fuzz/dictionaries/*; do
    [[ " $(sed -n 's/^# *for: //p' "$words") " != *" $target "* ]] || options+=(-dict="$words")
  done
  before=$(find "$artifacts" -type f | wc -l)
  "$programs/$target" "${options[@]}" "$new" "fuzz/corpus/$target" > "$log" 2>&1 || true
  crashes=$(($(find "$artifacts" -type f | wc -l) - before))
  last() { sed -n "s/^stat::$1: *//p" "$log"; }
  # A program that ends without statistics has failed, whatever it left behind.
  executions=$(last number_of_executed_units)
  [ -n "$executions" ] && [ $crashes -eq 0 ] || failed=1
  printf '%-18s %12s %8s %8s %8s\n' "$target" "${executions:-failed}" "$(last average_exec_per_sec)" "$(last new_units_added)" $crashes
  [ $crashes -eq 0 ] || grep -m 4 -A 1 -E "panicked at|ERROR: |^SUMMARY|Test unit written" "$log" || true
done
exit $failed
