"""Pictures with profiles are seen as viewers show them."""

import io
import struct

import cv2
import numpy as np
import pytest
from data_helpers import encode
from PIL import Image, ImageCms

from distillery.data import images
from distillery.data.images import decode_rgb

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
# Adobe RGB (1998), sections 4.3.1 and 4.3.4: primaries for D50, and the gamma of 563/256.
PRIMARIES = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(40, 216, (16, 16, 3), np.uint8))


def xyz(values):
    return struct.pack(">3i", *(round(value * 2**16) for value in values))


def make_profile(space=b"RGB ", device=b"mntr"):
    """A matrix profile, or one of grey, whose numbers are not sRGB's (ICC.1:2001)."""
    white, curve = (0.9642, 1.0, 0.8249), b"curv" + struct.pack(">IIHH", 0, 1, 563, 0)
    colours = {name: b"XYZ \0\0\0\0" + xyz(values) for name, values in PRIMARIES.items()}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC", b"kTRC"), curve)
    name = b"desc" + struct.pack(">II", 0, 6) + b"Adobe\0" + bytes(78)
    tags = {b"desc": name, b"wtpt": b"XYZ \0\0\0\0" + xyz(white), **colours, **curves}
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s12x4s28x", start + len(body), b"", 0x02100000, device, space,
                       b"XYZ ", b"acsp")  # fmt: skip
    return (head + xyz(white)).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


ADOBE = make_profile()


def in_adobe(image):
    held = ImageCms.ImageCmsProfile(io.BytesIO(ADOBE))
    return ImageCms.profileToProfile(image, SRGB, held)


def difference(data, image=PICTURE):
    return np.abs(decode_rgb(data).astype(int) - np.asarray(image.convert("RGB"))).max()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_of_a_profile_are_seen_as_viewers_show_them(mode):
    stored = in_adobe(PICTURE)
    stored = stored.quantize(256) if mode == "P" else stored.convert(mode)
    assert difference(encode(stored, "PNG", icc_profile=None)) > 10
    assert difference(encode(stored, "PNG", icc_profile=ADOBE)) <= 3


def test_transparency_stays():
    stored = in_adobe(PICTURE)
    alpha = np.repeat(np.uint8([0, 255]), 8)[:, None].repeat(16, axis=1)
    stored.putalpha(Image.fromarray(alpha))
    pixels = decode_rgb(encode(stored, "PNG", icc_profile=ADOBE))
    assert (pixels[:8] == 255).all()
    assert np.abs(pixels[8:].astype(int) - np.asarray(PICTURE)[8:]).max() <= 3


def test_grey_has_profiles_of_its_own():
    grey = PICTURE.convert("L")
    data = encode(grey, "PNG", icc_profile=make_profile(b"GRAY"))
    pixels = decode_rgb(data)
    assert (pixels == pixels[..., :1]).all()
    assert 0 < difference(data, grey) < 12


@pytest.mark.parametrize(
    "profile",
    [b"junk" * 50, ADOBE[:200], ADOBE[:140] + b"\xff" * 60 + ADOBE[200:], SRGB.tobytes(),
     make_profile(b"CMYK", b"prtr"), make_profile(b"GRAY"), make_profile(b"Lab ", b"spac")],
    ids=["junk", "cut short", "damaged", "sRGB", "of four inks", "of grey", "of Lab"],
)  # fmt: skip
def test_a_profile_that_is_none_of_the_image_changes_nothing(profile):
    assert difference(encode(PICTURE, "PNG", icc_profile=profile)) == 0


def test_a_profile_of_other_channels_is_passed_over_in_cmyk():
    plain = encode(PICTURE.convert("CMYK"), "JPEG")
    held = encode(PICTURE.convert("CMYK"), "JPEG", icc_profile=ADOBE)
    assert (decode_rgb(plain) == decode_rgb(held)).all()


BANDED = [
    ("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("LA", "PNG", {}), ("1", "PNG", {}),
    ("P", "PNG", {"transparency": 3}), ("P", "GIF", {}), ("CMYK", "JPEG", {}), ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"quality": 60}), ("RGBA", "AVIF", {"quality": 60}), ("I;16", "TIFF", {}),
]  # fmt: skip


@pytest.mark.parametrize("profile", [None, ADOBE])
@pytest.mark.parametrize(("mode", "kind", "options"), BANDED)
def test_large_pictures_are_those_that_small_ones_are(mode, kind, options, profile, monkeypatch):
    rng = np.random.default_rng(0)
    pixels = cv2.resize(rng.integers(0, 256, (6, 5, 4), np.uint8), (50, 61))
    image = Image.fromarray(pixels).convert("RGBA" if mode in ("RGBA", "LA") else "RGB")
    image = (
        Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
        if mode == "I;16"
        else image.convert(mode)
    )
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(image, kind, exif=exif, icc_profile=profile, **options)
    whole = decode_rgb(data)
    monkeypatch.setattr(images, "_BAND_PIXELS", 50 * 7)
    assert (decode_rgb(data) == whole).all()
