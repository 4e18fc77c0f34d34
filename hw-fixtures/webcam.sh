#!/bin/bash
# Runs in the guest, as root: plugs in the webcam, starts the daemon, and hands over to webcam.py, which goes live and
# pulls the plug. What to do is in /host-out/parameters.
set -euo pipefail
. /host-out/parameters
modprobe -d "$RIG/modules" -a vhci-hcd uvcvideo v4l2-mem2mem
insmod "$RIG/vh264enc.ko"
dmesg -n 1
/usr/bin/python3 "$rig/uvcsim.py" > /host-out/webcam.log 2>&1 & camera=$!
cat > /run/lenscastd.toml <<CONFIG
[camera]
device = "auto"
[audio]
device = "none"
[control]
socket = "/run/lenscast.sock"
CONFIG
export GST_REGISTRY=/host-out/registry.bin GST_REGISTRY_FORK=no STATE_DIRECTORY=/run/lenscast-state
for _ in $(seq 100); do compgen -G '/dev/video[1-9]' > /dev/null && break; sleep 0.1; done
RUST_LOG=${RUST_LOG:-info,lenscast=debug} "$daemon" --config /run/lenscastd.toml > /host-out/lenscastd.log 2>&1 & lenscastd=$!
/usr/bin/python3 "$here/webcam.py" /run/lenscast.sock "$url" "$seconds" "$rate" "$camera"
kill "$lenscastd"
wait "$lenscastd"
echo "the daemon ended cleanly"
