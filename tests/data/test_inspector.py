"""Pictures that nobody has checked, described by a worker that may die of them."""

import os
import signal
import struct
import zlib
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from data_helpers import encode
from PIL import Image

from distillery.core.errors import DistilleryError
from distillery.data.inspector import ImageFacts, Inspector, inspect_image


@pytest.fixture(scope="module")
def inspector():
    with Inspector() as running:
        yield running


def bomb_png(width: int, height: int) -> bytes:
    """A valid PNG of one colour whose header promises width x height pixels in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (20_000, 2), (7, 5)])
def test_pictures_of_odd_sizes_are_described(size):
    facts = inspect_image(encode(Image.new("RGB", size, "red"), "PNG"))
    assert (facts.width_px, facts.height_px) == size


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not an image of an accepted format: no bytes"),
        (b"<html>not found</html>", "not an image of an accepted format: web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "not an image of an accepted format: HEIC"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encode(Image.new("RGB", (64, 64), "red"), "PNG")[:90], "OSError"),
        (bomb_png(9_000, 9_000), "9000 x 9000 px"),
        (bomb_png(30_000, 30_000), "decompression bomb"),
    ],
)
def test_bad_bytes_are_a_reason_and_the_next_image_works(inspector, data, reason):
    assert reason in inspector.inspect(data)
    good = inspector.inspect(encode(Image.new("RGB", (7, 5)), "PNG"))
    assert (good.width_px, good.height_px, good.format) == (7, 5, "PNG")


def test_memory_limit_costs_one_image_only():
    large = encode(Image.new("RGB", (6000, 6000)), "PNG")
    with Inspector(memory_limit_bytes=64 * 2**20) as inspector:
        assert isinstance(inspector.inspect(large), str)
        assert isinstance(inspector.inspect(encode(Image.new("RGB", (9, 9)), "PNG")), ImageFacts)


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [("RGBA", "PNG", {"compress_level": 1}), ("RGB", "WEBP", {"method": 0})],
)
def test_a_large_picture_takes_14_bytes_a_pixel_and_some(mode, kind, options):
    data = encode(Image.new(mode, (4000, 4000), "red"), kind, **options)
    with Inspector(memory_limit_bytes=210 * 2**20) as inspector:
        assert isinstance(inspector.inspect(data), ImageFacts)


def test_time_limit_costs_one_image_only():
    large = encode(Image.new("RGB", (6000, 6000)), "PNG")
    with Inspector(time_limit_s=0.02) as inspector:
        assert "more than 0.02 s" in inspector.inspect(large)
        inspector._time_limit_s = 30
        assert isinstance(inspector.inspect(encode(Image.new("RGB", (9, 9)), "PNG")), ImageFacts)


def test_a_worker_that_was_killed_says_nothing_of_the_picture():
    data = encode(Image.new("RGB", (9, 9)), "PNG")
    with Inspector() as inspector:
        inspector.inspect(data)
        os.kill(inspector._process.pid, signal.SIGKILL)  # as the system does when memory runs out
        with pytest.raises(DistilleryError, match="as the system does when memory runs out"):
            inspector.inspect(data)


def test_a_decoder_that_crashes_costs_its_picture():
    with Inspector() as inspector:
        inspector.inspect(data := encode(Image.new("RGB", (9, 9)), "PNG"))
        os.kill(inspector._process.pid, signal.SIGSEGV)
        assert inspector.inspect(data) == "the decoder crashed on it"
        assert isinstance(inspector.inspect(data), ImageFacts)


def test_ctrl_c_does_not_reach_the_worker_also_of_the_first_start(monkeypatch):
    for name in ("_fd", "_pid"):  # as in a process that has started none
        monkeypatch.setattr(resource_tracker._resource_tracker, name, None)
    with Inspector() as inspector:
        assert inspector.inspect(encode(Image.new("RGB", (8, 8)), "PNG"))
        status = Path(f"/proc/{inspector._process.pid}/status").read_text()
    blocked = int(status.split("SigBlk:")[1].split()[0], 16)
    assert blocked & 1 << (signal.SIGINT - 1)
