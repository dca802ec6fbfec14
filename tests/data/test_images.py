import io
import struct

import cv2
import numpy as np
import pytest
from data_helpers import encode
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from distillery.data.images import UndecodableError, decode_rgb


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "1", "I;16"])
def test_every_png_mode_becomes_rgb(mode):
    source = Image.new(mode, (6, 4), 1 if mode == "1" else None)
    assert decode_rgb(encode(source, "PNG")).shape == (4, 6, 3)


def test_a_wrong_checksum_of_pixels_is_damage():
    data = encode(Image.effect_noise((400, 400), 50.0), "PNG")
    assert data.count(b"IDAT") > 1
    for end in (data.rindex(b"IDAT") - 4, data.index(b"IEND") - 4):
        wrong = data[: end - 1] + bytes([data[end - 1] ^ 1]) + data[end:]
        with pytest.raises(UndecodableError, match="damaged PNG: the checksum of IDAT"):
            decode_rgb(wrong)
    assert decode_rgb(data[: data.index(b"IEND") - 4]).shape == (400, 400, 3)


def test_cmyk_jpeg_becomes_rgb():
    data = encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    red, green, _ = decode_rgb(data)[4, 4]
    assert red > 200
    assert green < 60


def test_transparency_is_white():
    data = encode(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")
    assert (decode_rgb(data) == 255).all()


def test_sixteen_bit_grey_keeps_its_upper_bits():
    source = Image.fromarray(np.full((4, 4), 0x8001, dtype=np.uint16))
    assert (decode_rgb(encode(source, "PNG")) == 0x80).all()


GREY = np.linspace(0, 65535, 48 * 32).reshape(48, 32).astype(np.uint16)
COLOUR = np.dstack([GREY, GREY[::-1], GREY[:, ::-1]])


@pytest.mark.parametrize("kind", [".tif", ".png"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, np.dstack([COLOUR, np.full_like(GREY, 65535)])])
def test_sixteen_bits_are_scaled_not_clipped(kind, pixels):
    drawn = decode_rgb(cv2.imencode(kind, pixels)[1].tobytes())
    bgr = pixels[..., :3] if pixels.ndim == 3 else np.dstack([pixels] * 3)
    assert (drawn == (bgr[..., ::-1] >> 8)).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.int16])
def test_samples_without_an_agreed_range_are_refused(kind):
    data = cv2.imencode(".tif", GREY.astype(kind))[1].tobytes()
    with pytest.raises(UndecodableError, match="save it with 8 or 16 bits"):
        decode_rgb(data)


STORED = {  # the top left as displayed, when this is done with a picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def cornered(orientation=1):
    """A picture, red at the top left as displayed, as it is stored."""
    image = Image.new("RGB", (48, 32), "blue")
    image.paste("red", (0, 0, 16, 16))
    return image if orientation == 1 else image.transpose(STORED[orientation])


def require_upright(data):
    pixels = decode_rgb(data)
    assert pixels.shape == (32, 48, 3)
    assert pixels[8, 8, 0] > 230 > 60 > pixels[8, 8, 2]
    assert pixels[24, 40, 2] > 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    require_upright(encode(cornered(orientation), kind, exif=exif))


def tag(number, kind, count, value):
    return struct.pack("<HHI", number, kind, count) + value.ljust(4, b"\0")


LYING = tag(0x0112, 3, 1, b"\6")
TAGS = {  # as applications write them: of a type they should not have, or pointing nowhere
    "long": [tag(0x0112, 4, 1, b"\6")],
    "byte": [tag(0x0112, 1, 1, b"\6")],
    "two values": [tag(0x0112, 3, 2, b"\6\0\1\0")],
    "given twice": [LYING, LYING],
    "unsorted": [tag(0x0131, 2, 4, b"abc"), LYING],
    "resolution as text": [LYING, tag(0x011A, 2, 4, b"72")],
    "resolution as float": [LYING, tag(0x011A, 11, 1, b"\0\0\x90B")],
    "software as bytes": [LYING, tag(0x0131, 7, 4, b"\xff\xfe\xfd")],
    "position as text": [LYING, tag(0x8825, 2, 4, b"gps")],
    "position outside": [LYING, tag(0x8825, 4, 1, b"\0\0\1")],
    "a loop": [LYING, tag(0x8769, 4, 1, b"\x08")],
    "text outside": [LYING, tag(0x0131, 2, 400, b"\0\0\1")],
    "text of 4 GiB": [LYING, tag(0x0131, 2, 2**32 - 1, b"\x08")],
}


def with_tags(tags, num_tags=None):
    """A lying JPEG with these tags."""
    data = encode(cornered(6), "JPEG")
    head = b"Exif\0\0II*\0" + struct.pack("<IH", 8, num_tags or len(tags))
    segment = head + b"".join(tags) + bytes(4)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_odd_tags_cost_no_picture(tags):
    require_upright(with_tags(tags))


def test_a_list_of_tags_that_is_cut_short_costs_no_picture():
    require_upright(with_tags([LYING], num_tags=2**16 - 1))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    require_upright(encode(cornered(), "JPEG", exif=exif))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "AVIF", "TIFF"])
def test_the_first_of_several_frames_counts(kind):
    frames = [Image.new("RGB", (48, 32), "white")] * 2
    require_upright(encode(cornered(), kind, save_all=True, append_images=frames))


@pytest.mark.parametrize("added", [b"\0" * 999, b"<html>", encode(Image.new("L", (9, 9)), "JPEG")])
def test_bytes_behind_a_picture_are_passed_over(added):
    require_upright(encode(cornered(), "JPEG") + added)
    require_upright(encode(cornered(), "PNG") + added)


def test_ycck_jpeg_becomes_rgb():
    """What Adobe's programs write: inverted luminance and colour, and black beside."""
    inverted = Image.eval(Image.eval(cornered(), lambda level: 255 - level).convert("YCbCr"),
                          lambda level: 255 - level)  # fmt: skip
    planes = Image.merge("CMYK", [*inverted.split(), Image.new("L", inverted.size)])
    data = bytearray(encode(planes, "JPEG", quality=98, subsampling=0))
    assert data[data.index(b"Adobe") + 11] == 0
    data[data.index(b"Adobe") + 11] = 2
    require_upright(bytes(data))


def test_multi_picture_jpeg_is_its_first_picture():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert decode_rgb(data)[4, 4, 0] > 240


def test_truncated_jpeg_is_undecodable(scene_images):
    data = encode(Image.fromarray(scene_images[0]), "JPEG")
    with pytest.raises(UndecodableError):
        decode_rgb(data[: len(data) // 2])


def test_a_large_text_in_a_png_costs_no_picture():
    notes = PngInfo()
    notes.add_text("workflow", "node " * 2**20, zip=True)
    assert decode_rgb(encode(Image.new("RGB", (9, 9)), "PNG", pnginfo=notes)).shape == (9, 9, 3)


def test_grey_of_twelve_bits_that_lies_is_scaled_too():
    upright = decode_rgb(twelve_bits(1))
    assert upright.max() > 250
    assert (decode_rgb(twelve_bits(3)) == upright[::-1, ::-1]).all()


def twelve_bits(orientation):
    """A TIFF, uncompressed, of two pixels of 12 bits and their like."""
    packed = bytes([0xFF, 0xF0, 0x10]) * 2
    tags = [
        tag(256, 3, 1, b"\4"), tag(257, 3, 1, b"\1"), tag(258, 3, 1, b"\x0c"),
        tag(259, 3, 1, b"\1"),
        tag(262, 3, 1, b"\1"), tag(273, 4, 1, b"\x08"), tag(274, 3, 1, bytes([orientation])),
        tag(277, 3, 1, b"\1"), tag(278, 3, 1, b"\1"), tag(279, 4, 1, bytes([len(packed)])),
    ]  # fmt: skip
    start = 8 + len(packed)
    return (b"II*\0" + struct.pack("<I", start) + packed + struct.pack("<H", len(tags))
            + b"".join(tags) + bytes(4))  # fmt: skip
