#!/bin/bash
# On the emulated board (board/run-board.py): waits for systemd, plugs in a USB webcam, loads the encoder, encodes three seconds, and
# shows the LED.
set -euo pipefail
systemctl is-system-running --wait
systemd-analyze | head -n 1
camera=$(hardware webcam --mode yuyv:320x240@15)
hardware encoder
hardware led privacy
gst-launch-1.0 -q v4l2src device="$camera" num-buffers=45 ! videoconvert ! v4l2h264enc ! 'video/x-h264,level=(string)4' ! filesink location=/tmp/h264
ls -l /tmp/h264
echo 255 > /sys/class/leds/privacy/brightness
cat /run/led-privacy.log
