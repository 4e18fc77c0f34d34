"""A USB webcam without a webcam: `python3 uvcsim [options]` beside the module's folder, as root, where vhci-hcd is loaded.

The stock uvcvideo driver binds to it. SIGUSR1 pulls the plug (a true USB disconnect), SIGUSR2 plugs it in again; the same by words in
the FIFO of --control: unplug, plug, stall (stays there without frames), resume, flash (one
white frame, whose time on CLOCK_MONOTONIC is told; none in H.264). What happens is told on standard output, a line each.
"""
import argparse
import os
import re
import selectors
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from uvcsim import pictures  # noqa: E402
from uvcsim.camera import Camera  # noqa: E402
from uvcsim.usbip import Plug  # noqa: E402

DEFAULT_MODES = ["yuyv:640x480@30,25,15,10", "yuyv:320x240@30,25,15,10"]


def mode(text):
    match = re.fullmatch(r"(yuyv|nv12|mjpeg|h264):(\d+)x(\d+)@([\d.,]+)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"not FORMAT:WIDTHxHEIGHT@RATE[,RATE...]: {text}")
    return match[1], int(match[2]), int(match[3]), [float(rate) for rate in match[4].split(",")]


def arguments():
    parser = argparse.ArgumentParser(prog="uvcsim", description="A USB webcam in user space, plugged in by USB/IP.")
    add = parser.add_argument
    add("--mode", dest="modes", action="append", type=mode, metavar="FORMAT:WxH@RATE,...",
        help=f"yuyv, nv12, mjpeg or h264; repeat it for more (default {' '.join(DEFAULT_MODES)})")
    add("--name", default="Rig UVC camera", help="product name (default %(default)s)")
    add("--serial", default="0001", help="serial number (default %(default)s)")
    add("--port", type=int, default=0, help="port of the virtual host controller, 0 to 7")
    add("--pattern", choices=["bands", "noise"], default="bands", help="what it sees (default %(default)s)")
    add("--h264-file", metavar="FILE", help="Annex B, looped, for h264 modes (default: made with ffmpeg)")
    add("--unplugged", action="store_true", help="begin without the plug in")
    add("--unplug-after", type=float, metavar="SECONDS", help="pull the plug so long after it went in, once")
    add("--replug-after", type=float, metavar="SECONDS", help="plug it in again so long after that")
    add("--stall-after", type=float, metavar="SECONDS", help="no more frames so long after it was plugged in, once")
    add("--control", metavar="FIFO", help="take words from here: unplug, plug, stall, resume, flash")
    options = parser.parse_args()
    options.modes = options.modes or [mode(text) for text in DEFAULT_MODES]
    return options


def by_format(modes):
    formats = {}
    for pixel_format, width, height, rates in modes:
        formats.setdefault(pixel_format, []).append((width, height, rates))
    return list(formats.items())


def say(text):
    print(text, flush=True)


class Simulator:
    """The camera in its socket, or beside it."""

    def __init__(self, options):
        self.options, self.formats = options, by_format(options.modes)
        self.camera, self.alarms = None, {}
        self.selector = selectors.DefaultSelector()

    def plug(self):
        if self.camera:
            return
        strings = ("Rig", self.options.name, self.options.serial)
        source = pictures.source(self.options.pattern, self.options.h264_file)
        self.camera = Camera(Plug(self.options.port), self.formats, strings, source, say)
        self.selector.register(self.camera.plug, selectors.EVENT_READ, self.serve)
        self.set_alarm("unplug_after", self.unplug)
        self.set_alarm("stall_after", self.stall)
        say("plugged in")

    def unplug(self):
        if not self.camera:
            return
        self.selector.unregister(self.camera.plug)
        self.camera.plug.close()
        say(f"unplugged after {self.camera.sent} frames")
        self.camera, self.alarms = None, {}
        self.set_alarm("replug_after", self.plug)

    def stall(self):
        if self.camera:
            self.camera.stalled = True
            say("stalled")

    def resume(self):
        if self.camera:
            self.camera.stalled = False
            say("resumed")

    def flash(self):
        if self.camera:
            self.camera.flash_due = True

    def serve(self):
        if not self.camera:
            return  # a word that came in the same turn pulled the plug
        requests = self.camera.plug.requests()
        if requests is None:
            self.unplug()
        else:
            self.camera.handle(requests)

    def set_alarm(self, option, action):
        """Each of the options that are times counts once."""
        seconds = getattr(self.options, option)
        if seconds is not None:
            setattr(self.options, option, None)
            self.alarms[action] = time.monotonic() + seconds

    def on_alarms(self):
        now = time.monotonic()
        for action in [action for action, at in self.alarms.items() if at <= now]:
            self.alarms.pop(action, None)
            action()

    def turn(self):
        due = self.camera.pump() if self.camera else None
        if self.camera:
            self.camera.plug.flush()
        now = time.monotonic()
        waits = [max(0.0, at - now) for at in self.alarms.values()] + ([] if due is None else [due])
        for key, _ in self.selector.select(min(waits, default=None)):
            key.data()
        self.on_alarms()


def main():
    options = arguments()
    simulator = Simulator(options)
    # Signals and words wake the selector by these.
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    actions = {signal.SIGUSR1: simulator.unplug, signal.SIGUSR2: simulator.plug}
    for number in actions:
        signal.signal(number, lambda *_: None)

    def on_signal():
        for number in os.read(wake, 64):
            actions.get(number, lambda: None)()

    simulator.selector.register(wake, selectors.EVENT_READ, on_signal)
    if options.control:
        os.mkfifo(options.control)
        words = os.open(options.control, os.O_RDWR)

        def on_words():
            for word in os.read(words, 4096).decode().split():
                if word in ("plug", "unplug", "stall", "resume", "flash"):
                    getattr(simulator, word)()
                else:
                    say(f"no such word: {word}")

        simulator.selector.register(words, selectors.EVENT_READ, on_words)
    if not options.unplugged:
        simulator.plug()
    while True:
        try:
            simulator.turn()
        except ConnectionError:
            simulator.unplug()


if __name__ == "__main__":
    main()
