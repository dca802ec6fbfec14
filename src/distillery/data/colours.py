"""Colours of images that bring a profile, and grey of more than 8 bits.

In: a decoded image and the ICC profile in its file. Out: the image in sRGB, as viewers show it and
as networks know colours. A profile that is damaged, or of other channels than the image has, counts
as none, as in viewers; one that calls itself sRGB costs nothing. Not here: PNG's gAMA and cHRM.
"""

import functools
import io

import numpy as np
from PIL import ExifTags, Image, ImageCms

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_GREY = ("1", "L", "LA")
_MAX_PROFILE_BYTES = 2**24  # those of presses have some 2 MB


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """The image, its transparency unchanged; itself where the profile changes nothing.

    A megapixel takes 20 ms where a profile is applied.
    """
    mode = "L" if image.mode in _GREY else "CMYK" if image.mode == "CMYK" else "RGB"
    transform = _transform(profile, mode) if profile else None
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image.convert(mode), transform)
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """To sRGB from an image of the mode; None where there is nothing to do, or nothing can be."""
    if len(profile) > _MAX_PROFILE_BYTES:
        return None
    try:
        held = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _MODES.get(held.profile.xcolor_space) != mode or "sRGB" in (
            ImageCms.getProfileDescription(held)
        ):
            return None
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(held))
        return ImageCms.buildTransform(held, _srgb(), mode, "RGB", intent)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def upper_bits(image: Image.Image) -> np.ndarray:
    """uint8 (H, W) of grey with 9 to 16 bits, as a TIFF's tags count and polarise them."""
    tags = getattr(image, "tag_v2", {})
    num_bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    upper = (np.asarray(image) >> (num_bits - 8)).astype(np.uint8)
    white_is_zero = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    return 255 - upper if white_is_zero else upper
