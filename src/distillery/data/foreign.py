"""What files are that come as pictures and are of no format that is read.

In: bytes that no decoder took. Out: what they are, for people. Not here: decoding.
"""

import re

_HEAD_BYTES = 2**12
_KINDS = tuple(
    (name, re.compile(pattern, re.DOTALL | re.IGNORECASE))
    for name, pattern in (
        ("HEIC", rb".{4}ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)"),
        ("camera raw", rb".{4}ftypcrx|FUJIFILMCCD-RAW|IIRO|IIU\x00"),
        ("AVIF", rb".{4}ftypavi[fs]"),
        ("video", rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI "),
        ("JPEG XL", rb"\xff\x0a|\x00{3}\x0cJXL "),
        ("JPEG 2000", rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51"),
        ("web page", rb"[\xef\xbb\xbf\s]*<(!doctype html|html|head|body)"),
        ("SVG", rb"[\xef\xbb\xbf\s]*<(.*<)?svg\b"),
        ("XML", rb"[\xef\xbb\xbf\s]*<[?!a-z]"),
        ("Photoshop", rb"8BPS"),
        ("icon", rb"\x00\x00\x01\x00"),
        ("PDF", rb"%PDF"),
        ("PostScript", rb"%!PS|\xc5\xd0\xd3\xc6"),
        ("pointer of Git LFS", rb"version https://git-lfs"),
        ("DDS", rb"DDS "),
        ("QOI", rb"qoif"),
        ("OpenEXR", rb"\x76\x2f\x31\x01"),
        ("Radiance HDR", rb"#\?(RADIANCE|RGBE)"),
        ("netpbm", rb"P[1-7fF]\s"),
        ("packed archive", rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|BZh"),
        ("damaged TIFF, or camera raw", rb"II\*\x00|MM\x00\*"),
        ("damaged JPEG", rb"\xff\xd8"),
        ("damaged PNG", rb"\x89PNG"),
        ("damaged GIF", rb"GIF8"),
        ("damaged WebP", rb"RIFF.{4}WEBP"),
        ("JSON", rb"[\xef\xbb\xbf\s]*(\{\s*\"|\[\s*[\[{\"])"),
        ("text", rb"[\t\r\n\x20-\x7e]{4,}\Z"),
        ("zeros", rb"\x00+\Z"),
        ("no bytes", rb"\Z"),
    )
)


def foreign_kind(data: bytes) -> str | None:
    """What the bytes say they are, or None."""
    return next((name for name, magic in _KINDS if magic.match(data[:_HEAD_BYTES])), None)
