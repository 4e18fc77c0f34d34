#!/bin/bash
# run.sh: a demonstration on this machine. Builds, starts the cloud and, linked to it, the daemon, starts a managed
# stream, shows where to watch it and then what happens. Uses a real camera if there is one, else the test picture.
# Ctrl-C ends everything and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

echo "building ..."
cargo build --locked --features cloud --bins
bin=$CARGO_TARGET_DIR/debug

work=$(mktemp -d -t lenscast.XXXXXX)
pids=()
finish() {
  trap - EXIT INT TERM
  # The daemon first, so that it can say goodbye to the cloud.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { # tcp|udp PORT: that one if it is free, else any
  python3 - "$@" <<'PYTHON'
import socket, sys
tcp = sys.argv[1] == "tcp"
for port in (int(sys.argv[2]), 0):
    with socket.socket(type=socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as s:
        # With TCP this ignores connections that are still closing; with UDP it would share the port.
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, tcp)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PYTHON
}

http=$(free_port tcp 8080) rtmp=$(free_port tcp 1935) webrtc=$(free_port udp 8189)
cat > "$work/cloud.toml" <<CONF
[http]
listen = "127.0.0.1:$http"
[rtmp]
listen = "127.0.0.1:$rtmp"
[webrtc]
listen = "127.0.0.1:$webrtc"
[store]
path = "$work/cloud.sqlite"
[control]
socket = "$work/cloud.sock"
CONF
export LENSCAST_CLOUD_SOCKET=$work/cloud.sock LENSCAST_SOCKET=$work/control.sock RUST_LOG=${RUST_LOG:-warn}

# wait_for NAME PID COMMAND...: waits until the command succeeds; prints the program's log and exits if it dies or
# takes too long
wait_for() {
  local name=$1 pid=$2
  shift 2
  for _ in $(seq 100); do
    "$@" > "$work/answer" 2>&1 && return
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/answer" "$work/$name.log" >&2
  exit 1
}

"$bin/lenscast-cloud" --config "$work/cloud.toml" 2> "$work/lenscast-cloud.log" &
pids+=($!)
wait_for lenscast-cloud $! "$bin/lenscastctl" cloud streams
"$bin/lenscastctl" cloud device add glasses --user you@example.com > "$work/token"

cat > "$work/lenscastd.toml" <<CONF
[control]
socket = "$work/control.sock"
CONF
# Codecs have nodes like cameras. The daemon knows which one is a usable camera.
"$bin/lenscastd" --config "$work/lenscastd.toml" 2> "$work/lenscastd.log" &
pids[1]=$!
wait_for lenscastd $! "$bin/lenscastctl" camera list --json
device=test
grep -q '"kind":"camera, ' "$work/answer" && device=auto
kill "${pids[1]}"
wait "${pids[1]}" || true
cat >> "$work/lenscastd.toml" <<CONF
[camera]
device = "$device"
[cloud]
url = "ws://127.0.0.1:$http/glasses-ws"
token_file = "$work/token"
CONF
"$bin/lenscastd" --config "$work/lenscastd.toml" 2> "$work/lenscastd.log" &
pids[1]=$!
# Accepted as soon as the glasses have their link.
wait_for lenscastd $! "$bin/lenscastctl" cloud start --user you@example.com
active() { "$bin/lenscastctl" cloud streams --json | grep -q '"status":"active"'; }
wait_for lenscastd "${pids[1]}" active

url() { "$bin/lenscastctl" cloud streams --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0][sys.argv[1]])' "$1"; }
source="the camera"
[ $device = auto ] || source="the test picture and tone, as there is no camera that can be used"
cat <<NOTE

live from $source

watch it:        $(url watch_url)
HLS:             $(url hls_url)
DASH:            $(url dash_url)
ask the cloud:   $bin/lenscastctl --cloud-socket $work/cloud.sock cloud streams
ask the glasses: $bin/lenscastctl --socket $work/control.sock status
an app:          examples/livestream-app (see its README); the cloud is at http://127.0.0.1:$http

Ctrl-C ends it. What happens:
NOTE
"$bin/lenscastctl" cloud watch
