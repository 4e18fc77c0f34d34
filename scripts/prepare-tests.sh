#!/bin/bash
# prepare-tests.sh [rig-kernel|package|board-package|board...]: makes these, or all of what tests would have to wait minutes for: the
# rig's kernel, the package for this machine, that for the emulated board, and the board. What is there already is not made again. It
# takes only the processor time that nobody else wants, so that it can run beside compilers and tests. What cannot be made is said on
# stderr; the logs are in target/prepare/. Of several callers at once one works and the others wait for it. Takes about 30 minutes of
# one idle core, or seconds when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=" ${*:-rig-kernel package board-package board} "
logs=${CARGO_TARGET_DIR:-target}/prepare
mkdir -p "$logs"
exec 9> "$logs/lock"
flock 9
chrt --idle --pid 0 $$ > /dev/null
status=0
command=
trap '[ -z "$command" ] || kill -- "-$command" 2> /dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
make_ready() { # NAME COMMAND...
  local name=$1
  shift
  [[ $wanted == *" $name "* ]] || return 0
  setsid "$@" > "$logs/$name.log" 2>&1 9>&- & command=$!
  wait "$command" || {
    status=1
    echo "the $name cannot be made, and tests that need it will fail: $(tail -n 1 "$logs/$name.log") ($logs/$name.log)" >&2
  }
  command=
}
# Not dev: whoever builds tests would wait for its lock.
export MANUAL_PROFILE=ci
# In the order in which scripts/test.sh needs them. The board flashes what users get.
make_ready rig-kernel hw-fixtures/build-kernel.sh
make_ready package scripts/deb.sh --profile ci
make_ready board-package scripts/deb.sh aarch64-unknown-linux-gnu
make_ready board hw-fixtures/board/make-board.sh
exit "$status"
