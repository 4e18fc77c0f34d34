"""A baseline JPEG encoder for pictures of flat 16x16 blocks, by the JPEG standard (ITU-T T.81), 4:2:0.

Such a block has one coefficient a component, so a row of them is a few hundred bytes. Each row is a restart interval: rows do
not depend on one another, and a picture is put together from rows that were encoded once.
"""
import struct

# Eight, so that a flat block of value v has the coefficient v - 128 exactly.
QUANTISER = 8
# Codes of the lengths of a coefficient's difference (T.81, table K.3), and the one code for "no more coefficients".
DC_LENGTHS = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
DC_CODES = [(2, 0b00), (3, 0b010), (3, 0b011), (3, 0b100), (3, 0b101), (3, 0b110), (4, 0b1110), (5, 0b11110), (6, 0b111110)]  # 0 to 8
END_OF_BLOCK = (1, 0)


def segment(marker, body):
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def header(width, height):
    """Everything before the first row."""
    components = bytes([3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0])
    blocks = -(-width // 16)
    return b"".join([
        b"\xff\xd8",
        segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        segment(0xDB, bytes([0]) + bytes([QUANTISER] * 64)),
        segment(0xC0, struct.pack(">BHH", 8, height, width) + components),
        segment(0xC4, bytes([0x00, *DC_LENGTHS, *range(12)])),
        segment(0xC4, bytes([0x10, 1, *[0] * 15, 0])),
        segment(0xDD, struct.pack(">H", blocks)),
        segment(0xDA, bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0])),
    ])


def row(blocks):
    """A row of blocks, each (Y, Cb, Cr) in 0..255."""
    bits, count, before = 0, 0, [128, 128, 128]
    for block in blocks:
        for component, repeated in ((0, 4), (1, 1), (2, 1)):
            for _ in range(repeated):
                difference = block[component] - before[component]
                before[component] = block[component]
                size = abs(difference).bit_length()
                length, code = DC_CODES[size]
                value = difference if difference >= 0 else difference + (1 << size) - 1
                bits = (bits << length | code) << size | value
                bits, count = bits << END_OF_BLOCK[0] | END_OF_BLOCK[1], count + length + size + END_OF_BLOCK[0]
    padding = -count % 8
    data = (bits << padding | (1 << padding) - 1).to_bytes((count + padding) // 8, "big")
    return data.replace(b"\xff", b"\xff\x00")


def picture(head, rows):
    """A whole picture of a header and its rows."""
    pieces = [head]
    for number, data in enumerate(rows):
        if number:
            pieces.append(bytes([0xFF, 0xD0 + (number - 1) % 8]))
        pieces.append(data)
    pieces.append(b"\xff\xd9")
    return b"".join(pieces)
