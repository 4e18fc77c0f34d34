# cached.sh: for scripts that make a folder once: ${LENSCAST_BOARD:-~/.cache/lenscast-board}/NAME-HASH, by a hash of everything that
# goes in, so that versions stand side by side. What is there already is not made again; of several callers at once one makes it and
# the others wait. The folder's path is all that goes to standard output; progress goes to stderr.
#
#   begin NAME INPUT...   the hash is that of the INPUT files; ends the script if the folder is there. With $where set it only says
#                         where that would be. Afterwards $new is the folder to fill and $work one for the making
#   run COMMAND...        says nothing unless it fails
#   say TEXT...
#   complete              gives the folder its name
cache=${LENSCAST_BOARD:-~/.cache/lenscast-board}
# What programs say is read.
export LC_ALL=C.UTF-8

begin() {
  name=$1
  shift
  result=$cache/$name-$(cat "$@" | sha256sum | cut -c1-16)
  # A folder with this name is complete, because it got the name last.
  if [ -n "${where:-}" ] || [ -d "$result" ]; then
    echo "$result"
    exit 0
  fi
  mkdir -p "$cache"
  exec 9> "$result.lock"
  flock --nonblock 9 || { echo "board: somebody else makes its $name; waiting" >&2; flock 9; }
  [ -d "$result" ] && { echo "$result"; exit 0; }
  started=$SECONDS command=
  # Beside the result, as it is to be moved there; what an earlier making left behind is of no use.
  rm -rf --one-file-system "$result".part
  new=$result.part work=$(mktemp -d "$cache/work.XXXXXX")
  mkdir "$new"
  trap finish EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

finish() {
  if [ -n "$command" ]; then
    kill -- "-$command" 2> /dev/null || true
    # apt does not end while dpkg works.
    (sleep 5; kill -KILL -- "-$command") > /dev/null 2>&1 & local impatience=$!
    wait "$command" 2> /dev/null || true
    kill "$impatience" 2> /dev/null || true
  fi
  awk -v below="$new/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r umount --lazy
  rm -rf --one-file-system "$work" "$new"
}

say() { echo "board: $* ($((SECONDS - started)) s)" >&2; }

run() { # in the background, because bash acts on a signal only between commands; in a group, to be ended with all it has started
  setsid "$@" > "$work/log" 2>&1 9>&- & command=$!
  wait "$command" || { tail -n 40 "$work/log" >&2; say "failed: $*"; exit 1; }
  command=
}

complete() {
  mv "$new" "$result"
  say "made $result"
  echo "$result"
}
