"""What the camera tells of itself: USB descriptors with their video class parts.

By the USB 3.0 specification (chapter 9) and the Video Class 1.1 (chapter 3) with its payloads Uncompressed, MJPEG and
Frame Based. One configuration, a control and a streaming interface with a bulk endpoint. SuperSpeed, because there uvcvideo asks for
32 KB at a time, at high speed for 16.
"""
import struct

VENDOR, PRODUCT, RELEASE = 0x1D6B, 0x0104, 0x0100
CONTROL, STREAMING = 0, 1
ENDPOINT = 1
# What uvcvideo asks for at a time: 32 packets of 1024 bytes.
PAYLOAD = 32 * 1024
CLOCK = 48_000_000

VIDEO, VIDEO_CONTROL, VIDEO_STREAMING = 14, 1, 2
CS_INTERFACE = 0x24
GUID = {
    "yuyv": bytes.fromhex("5955593200001000800000aa00389b71"),
    "nv12": bytes.fromhex("4e56313200001000800000aa00389b71"),
    "h264": bytes.fromhex("4832363400001000800000aa00389b71"),
}
BITS = {"yuyv": 16, "nv12": 12, "h264": 16}
# Descriptor subtypes of (format, frame).
SUBTYPES = {"yuyv": (4, 5), "nv12": (4, 5), "mjpeg": (6, 7), "h264": (16, 17)}
STRINGS = ("manufacturer", "product", "serial")


def class_specific(subtype, *parts):
    body = b"".join(parts)
    return bytes([3 + len(body), CS_INTERFACE, subtype]) + body


def interval(rate):
    """A frame rate as the class counts it: 100 ns from frame to frame."""
    return round(10_000_000 / rate)


def frame_size(pixel_format, width, height):
    """Bytes of the largest frame."""
    return width * height * BITS.get(pixel_format, 16) // 8


def format_descriptors(index, pixel_format, frames):
    """One format with its frames, each (width, height, rates)."""
    kind, frame_kind = SUBTYPES[pixel_format]
    head = struct.pack("<BB", index, len(frames))
    if pixel_format == "mjpeg":
        yield class_specific(kind, head, bytes([0, 1, 0, 0, 0, 0]))
    else:
        variable = bytes([1]) if pixel_format == "h264" else b""
        yield class_specific(kind, head, GUID[pixel_format], bytes([BITS[pixel_format], 1, 0, 0, 0, 0]), variable)
    for number, (width, height, rates) in enumerate(frames, 1):
        intervals = [interval(rate) for rate in rates]
        largest = frame_size(pixel_format, width, height)
        bits = [largest * 8 * round(rate) for rate in (min(rates), max(rates))]
        if pixel_format == "h264":
            rest = struct.pack("<IBI", intervals[0], len(intervals), 0)
        else:
            rest = struct.pack("<IIB", largest, intervals[0], len(intervals))
        yield class_specific(frame_kind, struct.pack("<BBHHII", number, 0, width, height, *bits), rest,
                             struct.pack(f"<{len(intervals)}I", *intervals))
    if pixel_format != "h264":
        yield class_specific(13, bytes([1, 1, 4]))  # colours: BT.709


def configuration(formats):
    """The configuration of a camera with these formats: [(pixel format, [(width, height, rates)])]."""
    described = b"".join(b"".join(format_descriptors(i, *f)) for i, f in enumerate(formats, 1))
    header_length = 13 + len(formats)
    streaming = class_specific(1, struct.pack("<BHBBBBBBB", len(formats), header_length + len(described), 0x80 | ENDPOINT,
                                              0, 2, 0, 0, 0, 1), bytes(len(formats))) + described
    terminals = class_specific(2, struct.pack("<BHBBHHHB", 1, 0x0201, 0, 0, 0, 0, 0, 3), bytes(3)) + \
        class_specific(3, struct.pack("<BHBBB", 2, 0x0101, 0, 1, 0))
    control = class_specific(1, struct.pack("<HHIBB", 0x0110, 13 + len(terminals), CLOCK, 1, STREAMING)) + terminals
    body = b"".join([
        bytes([8, 11, CONTROL, 2, VIDEO, 3, 0, 2]),                       # the two belong together
        bytes([9, 4, CONTROL, 0, 0, VIDEO, VIDEO_CONTROL, 0, 2]), control,
        bytes([9, 4, STREAMING, 0, 1, VIDEO, VIDEO_STREAMING, 0, 0]), streaming,
        struct.pack("<BBBBHB", 7, 5, 0x80 | ENDPOINT, 2, 1024, 0),        # bulk
        bytes([6, 48, 0, 0, 0, 0]),                                       # its SuperSpeed companion
    ])
    return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 2, 1, 0, 0x80, 112) + body


def device():
    """The device: a camera by its interfaces, with the strings in STRINGS."""
    return struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0300, 0xEF, 2, 1, 9, VENDOR, PRODUCT, RELEASE, 1, 2, 3, 1)


def string(text):
    """A string descriptor; None gives the list of languages."""
    body = struct.pack("<H", 0x0409) if text is None else text.encode("utf-16le")
    return bytes([2 + len(body), 3]) + body
