# parts.sh, to be sourced: `part NAME COMMAND...` runs one part of a long job, notes how long it took, and returns as it did.
# `print_parts` lists them. A script that a part runs adds its own to the same list.
if [ -z "${LENSCAST_PARTS:-}" ]; then
  mkdir -p "${CARGO_TARGET_DIR:-target}"
  export LENSCAST_PARTS=${CARGO_TARGET_DIR:-target}/parts
  : > "$LENSCAST_PARTS"
fi

part() { # NAME COMMAND...
  local name=$1 began=$SECONDS status=0
  shift
  "$@" || status=$?
  printf '%6d s  %s%s\n' $((SECONDS - began)) "$name" "$([ "$status" -eq 0 ] || echo ": failed")" >> "$LENSCAST_PARTS"
  return "$status"
}

print_parts() {
  echo "how long each part took:"
  cat "$LENSCAST_PARTS"
}
