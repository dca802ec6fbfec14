"""Checksums of a PNG's pixels, which Pillow does not compare.

In: the bytes of a PNG that decodes. Out: which of its IDAT chunks is damaged. Other chunks are not
looked at: Pillow checks those before the pixels, and those behind them change no picture.
"""

import struct
import zlib

_SIGNATURE_BYTES, _FRAME_BYTES = 8, 12  # of a chunk: length, name, checksum (RFC 2083, 3.2)


def first_damaged_part(data: bytes) -> int | None:
    """Number of the first IDAT chunk whose CRC-32 is not what it says; None where all are."""
    start, num_parts, view = _SIGNATURE_BYTES, 0, memoryview(data)
    while start + _FRAME_BYTES <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + _FRAME_BYTES + length
        if name == b"IDAT":
            if end > len(data) or zlib.crc32(view[start + 4 : end - 4]) != _word(data, end - 4):
                return num_parts
            num_parts += 1
        start = end
    return None


def _word(data: bytes, start: int) -> int:
    return struct.unpack_from(">I", data, start)[0]
