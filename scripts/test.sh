#!/bin/bash
# test.sh [ARGUMENT of cargo test...]: runs the tests, all of them without arguments. The rig's kernel is built meanwhile, if it is
# not there yet. The last line sums up all test programs.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${CARGO_TARGET_DIR:-target}/test.log
mkdir -p "$(dirname "$log")"

kernel_log=$(dirname "$log")/rig-kernel.log
nice hw-fixtures/build-kernel.sh > /dev/null 2> "$kernel_log" & kernel=$!
trap 'kill "$kernel" 2> /dev/null || true' EXIT
cargo test --locked --features cloud --no-run "$@"
# The tests say themselves what is wrong with it when they come to it.
kill -0 "$kernel" 2> /dev/null && echo "waiting for the $(tail -n 1 "$kernel_log")"
wait "$kernel" || true
trap - EXIT

# Most of these tests wait for something most of the time; those that need the machine take turns.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
status=0
cargo test --locked --features cloud --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
