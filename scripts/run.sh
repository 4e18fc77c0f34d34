#!/bin/bash
# run.sh: the main job on this machine. Builds, starts a local RTMP server and the daemon, goes live, shows how to watch
# and a live status. The camera is a real one if there is one, else the test picture. Ctrl-C ends it and leaves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

echo "building ..."
cargo build --locked --bins
bin=$CARGO_TARGET_DIR/debug

work=$(mktemp -d /tmp/lenscast.XXXXXX)
pids=()
finish() {
  trap - EXIT INT TERM
  # The daemon first: it says goodbye to the server.
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" 2>/dev/null || true
  done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { # the one that was asked for if it is free, else any
  python3 - "$1" <<'PYTHON'
import socket, sys
for port in (int(sys.argv[1]), 0):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(s.getsockname()[1])
        break
PYTHON
}

port=$(free_port 1935)
cat > "$work/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.log warn;
events {}
rtmp {
  access_log off;
  server {
    listen 127.0.0.1:$port;
    application live { live on; }
  }
}
CONF
nginx -p "$work" -c "$work/nginx.conf" &
pids+=($!)

device=test
compgen -G '/dev/video*' >/dev/null && device=auto
cat > "$work/lenscastd.toml" <<CONF
[camera]
device = "$device"
[control]
socket = "$work/control.sock"
CONF
export LENSCAST_SOCKET=$work/control.sock
RUST_LOG=${RUST_LOG:-warn} "$bin/lenscastd" --config "$work/lenscastd.toml" 2> "$work/lenscastd.log" &
pids+=($!)
for _ in $(seq 50); do
  [ -S "$LENSCAST_SOCKET" ] && break
  kill -0 "${pids[1]}" 2>/dev/null || { cat "$work/lenscastd.log" >&2; exit 1; }
  sleep 0.1
done

url=rtmp://127.0.0.1:$port/live/demo
if ! "$bin/lenscastctl" start "$url" --wait --width 1280 --height 720 --fps 30 --bitrate 2000000; then
  tail -n 20 "$work/lenscastd.log" >&2
  exit 1
fi
source="the camera"
[ $device = auto ] || source="the test picture and tone, as there is no camera here"
ctl="$bin/lenscastctl --socket $work/control.sock"
note="live from $source
watch it:        ffplay -fflags nobuffer $url      (or VLC, mpv, OBS)
ask the daemon:  $ctl status
take a photo:    $ctl photo me.jpg"
[ -t 1 ] || printf '%s\n' "$note"
"$bin/lenscastctl" watch --note "$note"
