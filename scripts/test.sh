#!/bin/bash
# test.sh [ARGUMENT of cargo test...]: runs the tests; without arguments all of them, of the emulated board's those that take less than
# five minutes. The rig's kernel is built meanwhile, if it is not there yet; for the board's tests the board too, and the package that
# is flashed onto it. The last line sums up all test programs.
set -euo pipefail
cd "$(dirname "$0")/.."
log=${CARGO_TARGET_DIR:-target}/test.log
mkdir -p "$(dirname "$log")"

# The rest of it is `make test-board`.
board_tests=(service:: a_boot_without whoever_cannot)

[ "$(id -u)" -eq 0 ] || echo "not root: tests that need a network namespace, the rig, the board or a root file system will fail" >&2

making=()
make_beside() { # NAME COMMAND...: in the background; the tests say themselves what is wrong with it when they come to it
  nice "${@:2}" > /dev/null 2> "$(dirname "$log")/$1.log" &
  making+=("$!:$1")
}
trap 'for made in "${making[@]}"; do kill "${made%%:*}" 2> /dev/null || true; done' EXIT
make_beside rig-kernel hw-fixtures/build-kernel.sh
if [ $# -eq 0 ] || [[ " $* " == *" --test board "* ]]; then
  make_beside board hw-fixtures/board/make-board.sh
  make_beside package make --no-print-directory deb TARGET=aarch64-unknown-linux-gnu
fi
cargo test --locked --features cloud --no-run "$@"
[ $# -gt 0 ] || cargo test --locked --features cloud --no-run --test board
for made in "${making[@]}"; do
  kill -0 "${made%%:*}" 2> /dev/null && echo "waiting for the ${made#*:}: $(tail -n 1 "$(dirname "$log")/${made#*:}.log")"
  wait "${made%%:*}" || true
done
trap - EXIT

# Most of these tests wait for something most of the time; those that need the machine take turns.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-8}
status=0
run() {
  cargo test --locked --features cloud --no-fail-fast "$@" 2>&1 | tee -a "$log" || status=$?
}
: > "$log"
run "$@"
[ $# -gt 0 ] || run --test board -- "${board_tests[@]}"
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit "$status"
