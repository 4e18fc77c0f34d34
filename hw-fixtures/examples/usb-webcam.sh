#!/bin/bash
# hw-fixtures/run-guest.py hw-fixtures/examples/usb-webcam.sh
# In the guest: 60 frames of a USB webcam through a hardware encoder, then the plug is pulled.
set -euo pipefail
hardware encoder
camera=$(hardware webcam --serial 42)
echo "camera: $camera"
v4l2-ctl -d "$camera" --list-formats-ext | grep -E "Size|YUYV"
timeout 40 gst-launch-1.0 -q v4l2src device="$camera" num-buffers=60 ! video/x-raw,width=320,height=240,framerate=30/1 ! \
  videoconvert ! video/x-raw,format=NV12 ! v4l2h264enc extra-controls="controls,video_bitrate=1000000" ! \
  'video/x-h264,level=(string)4' ! h264parse ! filesink location=/host/camera.h264
ffprobe -v error -count_frames -show_entries stream=width,height,nb_read_frames -of default=nw=1 /host/camera.h264
echo unplug > /run/webcam-42
while [ -e "$camera" ]; do sleep 0.05; done
cat /run/webcam-42.log
