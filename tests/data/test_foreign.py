import pytest

from distillery.data.foreign import foreign_kind

KINDS = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "video": b"\0\0\0\x18ftypisom\0\0\0\0mp41",
    "camera raw": b"\0\0\0\x18ftypcrx \0\0\0\1",
    "JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "SVG": b'<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="9">',
    "web page": b"\xef\xbb\xbf\n<!DOCTYPE html><html><svg>",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "Photoshop": b"8BPS\0\1",
    "icon": b"\0\0\1\0\1\0",
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\n",
    "packed archive": b"\x1f\x8b\x08\0",
    "damaged JPEG": b"\xff\xd8\xff\xe0",
    "zeros": bytes(2**13),
    "no bytes": b"",
    "JSON": b'{ "detail": "not found"}',
    "text": b"404: not found\n",
    None: b"\x01anything else",
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_called_what_they_are(kind):
    assert foreign_kind(KINDS[kind]) == kind
