"""What the camera sees: a moving picture in each of its formats, made fast enough for 30 frames a second on an emulated CPU.

`bands`: the picture is in rows of 16 lines; each has its own grey, which changes with every frame, and a white one runs down. No two
neighbouring frames are alike, so a frozen picture shows. `noise`: blocks of random grey, for encoders to work on.
The H.264 of a camera that encodes by itself is a file in Annex B format, looped; if none is given, ffmpeg makes one.
"""
import random
import subprocess

from . import jpeg

ROW = 16
WHITE = 235
# Random rows to choose from, and greys.
VARIETY, LEVELS = 64, 64


def grey(level):
    return 16 + level * 3


def sequence(pattern, rows):
    """For each frame the rows, as numbers of a palette: LEVELS greys, one white, VARIETY random."""
    number = 0
    while True:
        number += 1
        if pattern == "noise":
            yield [LEVELS + 1 + random.randrange(VARIETY) for _ in range(rows)]
        else:
            yield [LEVELS if r == number % rows else (number * 2 + r * 5) % LEVELS for r in range(rows)]


def block_rows(width):
    """The palette: rows of (Y, Cb, Cr) by blocks of 16 pixels."""
    blocks = -(-width // ROW)
    palette = [[(grey(level), 118, 132)] * blocks for level in range(LEVELS)]
    palette.append([(WHITE, 90, 200)] * blocks)
    palette += [[(random.randrange(16, 236), 128, 128) for _ in range(blocks)] for _ in range(VARIETY)]
    return palette


def raw(pixel_format, pattern, width, height):
    """YUYV or NV12."""
    def yuyv(row):
        line = b"".join(bytes([y, u, y, v] * (ROW // 2)) for y, u, v in row)
        return (line[: width * 2]) * ROW

    def luma(row):
        return b"".join(bytes([y]) * ROW for y, _, _ in row)[:width] * ROW

    def chroma(row):
        return b"".join(bytes([u, v] * (ROW // 2)) for _, u, v in row)[:width] * (ROW // 2)

    planes = {"yuyv": [(yuyv, 2 * width * height)], "nv12": [(luma, width * height), (chroma, width * height // 2)]}
    palette = block_rows(width)
    drawn = [([draw(row) for row in palette], size) for draw, size in planes[pixel_format]]
    for rows in sequence(pattern, -(-height // ROW)):
        yield b"".join(b"".join(map(images.__getitem__, rows))[:size] for images, size in drawn)


def mjpeg(pattern, width, height):
    head = jpeg.header(width, height)
    encoded = [jpeg.row(row) for row in block_rows(width)]
    for rows in sequence(pattern, -(-height // ROW)):
        yield jpeg.picture(head, map(encoded.__getitem__, rows))


def white(pixel_format, width, height):
    """One white picture; None in H.264, where no picture stands alone."""
    if pixel_format == "mjpeg":
        return jpeg.picture(jpeg.header(width, height), [jpeg.row([(WHITE, 128, 128)] * -(-width // ROW))] * -(-height // ROW))
    if pixel_format == "yuyv":
        return bytes([WHITE, 128]) * (width * height)
    return bytes([WHITE]) * (width * height) + bytes([128]) * (width * height // 2) if pixel_format == "nv12" else None


def h264(path, width, height, rate):
    if path:
        with open(path, "rb") as file:
            stream = file.read()
    else:
        made = f"testsrc2=size={width}x{height}:rate={rate:.6g}:duration=2"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", made, "-c:v", "libx264", "-preset", "ultrafast"]
        command += ["-profile:v", "baseline", "-pix_fmt", "yuv420p", "-g", str(round(rate)), "-b:v", "1M"]
        stream = subprocess.run([*command, "-f", "h264", "-"], check=True, stdout=subprocess.PIPE).stdout
    units = access_units(stream)
    while True:
        yield from units


def access_units(stream):
    """Splits Annex B into pictures with their parameter sets: each ends with its last slice (H.264, 7.4.1.2.3)."""
    starts, at = [], stream.find(b"\0\0\1")
    while at >= 0:
        starts.append(at)
        at = stream.find(b"\0\0\1", at + 3)
    units, begin, picture_seen = [], 0, False
    for start in starts:
        kind, first = stream[start + 3] & 0x1F, stream[start + 4] & 0x80
        # The first slice of a picture begins with first_mb_in_slice = 0, a single 1 bit.
        opens = kind in (6, 7, 8, 9) or (kind in (1, 5) and first)
        if opens and picture_seen:
            cut = start - (stream[start - 1] == 0)
            units.append(stream[begin:cut])
            begin, picture_seen = cut, False
        picture_seen = picture_seen or kind in (1, 5)
    units.append(stream[begin:])
    return units


def source(pattern, h264_file):
    """Gives Camera what it needs: frames for a mode."""
    def frames(pixel_format, width, height, rate):
        if pixel_format == "h264":
            return h264(h264_file, width, height, rate)
        return mjpeg(pattern, width, height) if pixel_format == "mjpeg" else raw(pixel_format, pattern, width, height)
    return frames
