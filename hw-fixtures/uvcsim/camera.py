"""The camera's side of the Video Class: it answers what it is asked, and sends frames while it is streaming.

A frame is due at a steady beat from the moment the host commits to a mode. Frames that find no room are late, not lost, up to a
fifth of a second; then the beat starts anew, as in a real camera that drops what nobody fetches.
"""
import struct
import time

from . import descriptors
from .pictures import white
from .usbip import Submit

LATE_AT_MOST = 0.2
PROBE_LENGTH = 34
GET_CUR, GET_LEN, GET_INFO, SET_CUR = 0x81, 0x85, 0x86, 0x01
PROBE, COMMIT = 1, 2
END_OF_HEADER, END_OF_FRAME = 0x80, 0x02


class Camera:
    """Speaks over a plug until that is closed. `formats` as in descriptors.configuration, `pictures(mode)` gives frames forever."""

    def __init__(self, plug, formats, strings, pictures, say):
        self.plug, self.formats, self.pictures, self.say = plug, formats, pictures, say
        self.strings = [None, *strings]
        self.waiting = []  # (sequence, length) of requests for video
        self.selected = (1, 1, descriptors.interval(formats[0][1][0][2][0]))
        self.frames = None
        self.stalled = False
        self.flash, self.flash_due = None, False
        self.sent = 0
        self.rest, self.toggle, self.due = memoryview(b""), 0, 0.0

    # what the host asks

    def handle(self, requests):
        for request in requests:
            if not isinstance(request, Submit):
                before = len(self.waiting)
                self.waiting = [wait for wait in self.waiting if wait[0] != request.victim]
                self.plug.unlinked(request.sequence, len(self.waiting) < before)
            elif request.endpoint == 0:
                self.control(request)
            else:
                self.waiting.append((request.sequence, request.length))

    def control(self, request):
        kind, code, value, index, length = struct.unpack("<BBHHH", request.setup)
        if kind & 0x60 == 0:
            answer = self.standard(kind, code, value)
        elif kind & 0x60 == 0x20 and index == descriptors.STREAMING and value >> 8 in (PROBE, COMMIT):
            answer = self.streaming(kind, code, value >> 8, request.data)
        else:
            answer = None
        if answer is None:
            self.plug.stall(request.sequence)
        elif kind & 0x80:
            self.plug.complete(request.sequence, [answer[:length]])
        else:
            self.plug.complete(request.sequence, length=length)

    def standard(self, kind, code, value):
        """GET_DESCRIPTOR, GET_STATUS; everything that sets something is taken."""
        if code == 6:
            which, number = value >> 8, value & 0xFF
            if which == 1:
                return descriptors.device()
            if which == 2:
                return descriptors.configuration(self.formats)
            if which == 3 and number < len(self.strings):
                return descriptors.string(self.strings[number])
            return None
        if code == 0:
            return bytes(2)
        # SET_INTERFACE, and CLEAR_FEATURE of the endpoint, by which uvcvideo stops a bulk stream.
        if code == 11 or (code == 1 and kind == 2):
            self.stop()
        return b""

    def streaming(self, kind, code, selector, data):
        """Probe and commit: which mode it is to be."""
        if kind & 0x80:
            if code == GET_INFO:
                return b"\x03"
            return struct.pack("<H", PROBE_LENGTH) if code == GET_LEN else self.probe()
        if code != SET_CUR:
            return None
        number, frame = data[2], data[3]
        (asked,) = struct.unpack_from("<I", data, 4)
        number = number if 1 <= number <= len(self.formats) else 1
        frames = self.formats[number - 1][1]
        frame = frame if 1 <= frame <= len(frames) else 1
        intervals = [descriptors.interval(rate) for rate in frames[frame - 1][2]]
        chosen = min(intervals, key=lambda one: abs(one - asked)) if asked else intervals[0]
        self.selected = (number, frame, chosen)
        if selector == COMMIT:
            self.start()
        return b""

    def probe(self):
        number, frame, chosen = self.selected
        size = descriptors.frame_size(*self.mode()[:3])
        return struct.pack("<HBBIHHHHHIIIBBBB", 1, number, frame, chosen, 0, 0, 0, 0, 0, size, descriptors.PAYLOAD,
                           descriptors.CLOCK, 0, 0, 0, 0)

    def mode(self):
        """(pixel format, width, height, frames a second)"""
        number, frame, chosen = self.selected
        pixel_format, frames = self.formats[number - 1]
        width, height, _ = frames[frame - 1]
        return pixel_format, width, height, 10_000_000 / chosen

    # what it sends

    def start(self):
        pixel_format, width, height, rate = self.mode()
        self.frames = self.pictures(pixel_format, width, height, rate)
        self.flash = white(pixel_format, width, height)
        self.rest, self.due = memoryview(b""), time.monotonic()
        self.say(f"streaming {pixel_format} {width}x{height} at {rate:.4g}")

    def stop(self):
        if self.frames:
            self.say(f"stopped after {self.sent} frames")
        self.frames, self.rest = None, memoryview(b"")

    def next_frame(self, now):
        """The frame to send; a flash if one is due, whose time is told."""
        if not self.flash_due or self.flash is None:
            return next(self.frames)
        self.flash_due = False
        next(self.frames)
        self.say(f"flash at {now:.6f}")
        return self.flash

    def pump(self):
        """Sends what is due. Gives the seconds until something is again, or None."""
        now = time.monotonic()
        if not self.frames:
            return None
        if not self.rest and not self.stalled and now >= self.due and self.waiting:
            self.rest, self.toggle = memoryview(self.next_frame(now)), self.toggle ^ 1
            self.due = max(self.due + self.selected[2] / 1e7, now - LATE_AT_MOST)
            self.sent += 1
        while self.rest and self.waiting:
            sequence, length = self.waiting.pop(0)
            room = min(length, descriptors.PAYLOAD) - 2
            piece, self.rest = self.rest[:room], self.rest[room:]
            flags = END_OF_HEADER | self.toggle | (0 if self.rest else END_OF_FRAME)
            self.plug.complete(sequence, [bytes([2, flags]), piece])
        # Without room, the host's next request is what to wait for.
        return max(0.0, self.due - now) if self.waiting and not self.stalled else None
