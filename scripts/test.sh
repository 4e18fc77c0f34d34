#!/bin/bash
# Runs every test. The rig's kernel is built meanwhile, if it is not there yet. The last line sums up all test programs.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${CARGO_TARGET_DIR:-target}/test.log
mkdir -p "$(dirname "$log")"

# run.sh says itself what is wrong when its test comes to it.
nice hw-fixtures/run.sh --prepare > "$(dirname "$log")/rig-kernel.log" 2>&1 & rig=$!
cargo test --locked --no-run
wait "$rig" || true

# Most of these tests wait for something most of the time; those that need the machine take turns.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
status=0
cargo test --locked --no-fail-fast 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
