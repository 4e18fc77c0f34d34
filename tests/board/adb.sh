#!/bin/bash
# A stand-in for adb, since no USB cable leads to the emulated board: runs the command there by the ssh in $ADB_SSH.
# Like old versions, its `shell` returns no status of its own and ends lines as terminals do.
set -euo pipefail
read -ra ssh <<< "$ADB_SSH"
case $1 in
  get-state) "${ssh[@]}" true && echo device ;;
  shell) shift; "${ssh[@]}" "$*" 2>&1 | sed 's/$/\r/' || true ;;
  push) "${ssh[@]}" "cat > '$3'" < "$2" && echo "$2: 1 file pushed" ;;
  *) echo "adb: unknown command $1" >&2; exit 1 ;;
esac
