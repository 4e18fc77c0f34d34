#!/bin/bash
# run.sh [--prepare]: the main job on real drivers. Boots the camera rig (User-Mode Linux) with a USB webcam and a hardware
# encoder in it, lets the daemon find both and stream to an nginx-rtmp out here, counts the frames that came, and pulls
# the plug. --prepare only builds the rig's kernel (about 4 minutes, once).
#
# The rig is looked for beside the project (../shared/rig) or where LENSCAST_RIG says; the daemon is
# ${LENSCASTD:-target/debug/lenscastd}. Exits with 77 where there is no rig.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=$(dirname "$here")
rig=${LENSCAST_RIG:-$project/../shared/rig}
if [ ! -x "$rig/run-guest.sh" ]; then
  echo "no camera rig at $rig: set LENSCAST_RIG to where it is"
  exit 77
fi
[ "$(id -u)" -eq 0 ] || { echo "the camera rig needs root (a TAP device for its network)"; exit 1; }

# There is one rig kernel and one TAP device on a machine.
exec 9> /tmp/rig.lock
flock 9
export RIG=${RIG:-$HOME/.cache/lenscast-rig}
"$rig/build-kernel.sh" 9>&-
[ "${1:-}" = --prepare ] && exit 0

daemon=$(readlink -f "${LENSCASTD:-${CARGO_TARGET_DIR:-$project/target}/debug/lenscastd}")
[ -x "$daemon" ] || { echo "no daemon at $daemon: run cargo build"; exit 1; }
seconds=10 rate=30
work=$(mktemp -d)
export OUT=$work/out TAP=rigtap0
mkdir -p "$OUT" "$work/recordings"
nginx=
made_tap=
cleanup() {
  [ -z "$nginx" ] || { kill "$nginx" 2>/dev/null || true; wait "$nginx" 2>/dev/null || true; }
  [ -z "$made_tap" ] || ip link delete "$TAP" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT

if ! ip link show "$TAP" >/dev/null 2>&1; then
  ip tuntap add dev "$TAP" mode tap
  made_tap=1
  ip addr add 10.77.0.1/24 dev "$TAP"
  ip link set "$TAP" up
fi

# GStreamer's scan for plugins takes 2 to 9 s in the guest. Made here, it has to look again only at what depends on devices.
GST_REGISTRY=$OUT/registry.bin gst-inspect-1.0 >/dev/null 2>&1

port=
for candidate in $(shuf -i 20000-31999 -n 20); do
  cat > "$work/nginx.conf" <<CONF
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off; master_process off; worker_processes 1; pid $work/nginx.pid; error_log $work/error.log info;
events { worker_connections 64; }
rtmp { access_log off; server { listen 10.77.0.1:$candidate;
  application live { live on; record all; record_path $work/recordings; record_unique on; } } }
CONF
  nginx -p "$work" -c "$work/nginx.conf" -e "$work/error.log" 2>>"$work/error.log" 9>&- & nginx=$!
  for _ in $(seq 100); do
    if (exec 3<> "/dev/tcp/10.77.0.1/$candidate") 2>/dev/null; then port=$candidate; break; fi
    kill -0 "$nginx" 2>/dev/null || break
    sleep 0.05
  done
  [ -z "$port" ] || break
  kill "$nginx" 2>/dev/null || true
  wait "$nginx" 2>/dev/null || true
done
[ -n "$port" ] || { echo "nginx does not start:"; cat "$work/error.log"; exit 1; }

cat > "$OUT/parameters" <<PARAMETERS
daemon=$daemon
rig=$(readlink -f "$rig")
here=$here
url=rtmp://10.77.0.1:$port/live/webcam
seconds=$seconds
rate=$rate
PARAMETERS
status=0
"$rig/run-guest.sh" "$here/webcam.sh" 120 9>&- || status=$?
if [ "$status" -ne 0 ]; then
  echo "--- the guest failed with $status; the daemon's last words:"
  tail -n 60 "$OUT/lenscastd.log" 2>/dev/null || true
  exit 1
fi

recording=$(ls -tr "$work"/recordings/*.flv | head -n 1)
ffprobe -v error -count_frames -select_streams v -show_entries stream=nb_read_frames:format=duration -of default=nw=1 \
  "$recording" | awk -F= -v rate="$rate" -v seconds="$seconds" '
  $1 == "nb_read_frames" { frames = $2 }
  $1 == "duration" { duration = $2 }
  END {
    asked = rate * duration
    printf "frames at the server: %d of %d asked for in %.1f s\n", frames, asked, duration
    if (duration < seconds) { print "that is too short"; exit 1 }
    if (frames < 0.8 * asked) { print "that is less than 80 %"; exit 1 }
  }'
echo "ok"
