#!/bin/bash
# test.sh [ARGUMENT of cargo test...]: runs the tests; without arguments all of them, of the emulated board's those that take less than
# five minutes, those that need a kernel, a package or the board last, since prepare-tests.sh makes these meanwhile. Ends with how
# long each part took and, as the last line, the sum of all test programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/parts.sh
log=${CARGO_TARGET_DIR:-target}/test.log
: > "$log"

[ "$(id -u)" -eq 0 ] || echo "not root: tests that need a network namespace, the rig, the board or a root file system will fail" >&2
# Most of these tests wait for something most of the time; those that need the machine take turns.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
# The tests' packages find it built.
export MANUAL_PROFILE=ci
test_programs() { # ARGUMENT of cargo test...
  cargo test --locked --features cloud --no-fail-fast "$@" 2>&1 | tee -a "$log"
}
sum_up() {
  awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
}

if [ $# -gt 0 ]; then
  status=0
  [[ " $* " != *" --test board "* ]] || scripts/prepare-tests.sh board-package board || true
  test_programs "$@" || status=$?
  sum_up
  exit "$status"
fi

scripts/prepare-tests.sh & preparing=$!
trap 'kill "$preparing" 2> /dev/null || true' EXIT
# In this order, after all others. Of the board's the rest is `make test-board`.
last=(package hardware)
board_tests=(service:: a_boot_without whoever_cannot)
mapfile -t programs < <(cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for target in json.load(sys.stdin)["packages"][0]["targets"]:
    if target["kind"] == ["test"] and target["test"] and target["name"] not in sys.argv[1:]:
        print(target["name"])' "${last[@]}")

part "test programs built" cargo test --locked --features cloud --no-run
part "board's tests built" cargo test --locked --features cloud --no-run --test board
failed=0
part "unit tests" test_programs --lib --bins || failed=1
part "documentation's tests" test_programs --doc || failed=1
for program in "${programs[@]}" "${last[@]}"; do
  part "tests/$program" test_programs --test "$program" || failed=1
done
waiting() { wait "$preparing" || true; }
kill -0 "$preparing" 2> /dev/null && echo "waiting for what the board's tests need: target/prepare/"
part "waited for prepare-tests.sh" waiting
trap - EXIT
part "tests/board" test_programs --test board -- "${board_tests[@]}" || failed=1
print_parts
sum_up
exit "$failed"
