"""Decodes images to pixels as viewers show them.

In: encoded bytes from anywhere. Out: RGB, or the reason why they can't be decoded. Not here: a
limit on time and memory, which bytes that nobody has checked yet need (`inspector`).
"""

import functools
import io
import warnings

import cv2
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from distillery.data.colours import to_srgb, upper_bits
from distillery.data.foreign import foreign_kind
from distillery.data.png import first_damaged_part

MAX_PIXELS = 2**26
# Of a packed text or colour profile in a PNG: programs that draw keep whole workflows there.
PngImagePlugin.MAX_TEXT_CHUNK = 2**24
_TURNS = {  # EXIF 2.3, orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE = "icc_profile"
_BAND_PIXELS = 2**22
MAP_BACKGROUND = "black"  # nothing, in maps of every kind: where they are transparent
# Formats that need no external program and that image collections hold; a fixed list, because
# Pillow also opens formats that run others (EPS) or read further files. Multi-picture files (MPO)
# open as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


class UndecodableError(Exception):
    """The bytes are no image, cut short, too large or of a format that is not accepted."""


def decode_rgb(data: bytes, background: str = "white") -> np.ndarray:
    """Decode to uint8 (H, W, 3) sRGB: first frame, EXIF orientation applied, alpha over a colour.

    Raises `UndecodableError` with the reason; an image of more than 2**26 pixels is refused by its
    header, before anything of its size is allocated.
    """
    return decode(data, background)[0]


def decode(data: bytes, background: str) -> tuple[np.ndarray, str]:
    """What `decode_rgb` gives, and the name of the format."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image, format_name = _open(data)
            return _as_rgb(image, background), format_name
    except UndecodableError:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableError(str(error)) from None
    except UnidentifiedImageError:  # its message holds the address of a buffer
        kind = foreign_kind(data)
        what = f": {kind}" if kind else ""
        raise UndecodableError(f"not an image of an accepted format{what}") from None
    except MemoryError:
        raise UndecodableError("needs more memory than the decoder may use") from None
    except Exception as error:  # codecs raise anything on hostile bytes
        raise UndecodableError(f"{type(error).__name__}: {error}") from None


@functools.cache
def _known_formats() -> list[str]:
    """The accepted formats that this build of Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _open(data: bytes) -> tuple[Image.Image, str]:
    """The picture, upright, and the name of its format; grey of 9 to 16 bits is scaled to 8.

    What has no agreed range (32 bits, floats, signed numbers) would be clipped, so it is refused.
    """
    image = Image.open(io.BytesIO(data), formats=_known_formats())
    if image.width * image.height > MAX_PIXELS:
        raise UndecodableError(f"{image.width} x {image.height} px, over {MAX_PIXELS} px")
    format_name = image.format
    if format_name == "WEBP" and image.width * image.height > _BAND_PIXELS:
        image = _large_webp(image, data)
    image.load()
    turn = _turn(image)
    if format_name == "PNG" and (part := first_damaged_part(data)) is not None:
        raise UndecodableError(f"damaged PNG: the checksum of IDAT {part} is wrong")
    if image.mode in ("I", "F"):
        raise UndecodableError("samples of 32 bits, signed or floats: save it with 8 or 16 bits")
    _forget_file(image)
    if image.mode.startswith("I;16"):
        image = _with_profile(Image.fromarray(upper_bits(image)), image.info.get(_PROFILE))
    return (image if turn is None else image.transpose(turn)), format_name


def _large_webp(image: Image.Image, data: bytes) -> Image.Image:
    """As Pillow gives it, bit for bit, in half the memory: Pillow holds four copies at once."""
    _forget_file(image)
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise UndecodableError("WebP that is damaged or cut short")
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    loaded = Image.fromarray(cv2.cvtColor(pixels, order, dst=pixels))
    loaded.info = image.info
    return loaded


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What its EXIF orientation asks for; of the other tags, also broken ones, nothing is read."""
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
        return _TURNS.get(number[0] if isinstance(number, bytes) else number)
    except Exception:  # tags that can't be parsed at all, which viewers ignore as well
        return None


def _forget_file(image: Image.Image) -> None:
    """Release what a decoder keeps beside a loaded picture: of WebP twice its pixels."""
    image.fp = None
    vars(image).pop("_decoder", None)


def _with_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    image.info = {_PROFILE: profile} if profile else {}
    return image


def _as_rgb(image: Image.Image, background: str) -> np.ndarray:
    """uint8 (H, W, 3) in sRGB; transparent pixels become the background.

    Large pictures are converted by bands, since Pillow copies them at each step.
    """
    num_rows = max(1, _BAND_PIXELS // image.width)
    if image.height <= num_rows:
        return np.asarray(_shown(image, background))
    pixels = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top in range(0, image.height, num_rows):
        bottom = min(top + num_rows, image.height)
        band = image.crop((0, top, image.width, bottom))
        pixels[top:bottom] = np.asarray(_shown(band, background))
    return pixels


def _shown(image: Image.Image, background: str) -> Image.Image:
    shown = to_srgb(image, image.info.get(_PROFILE))
    if shown.has_transparency_data:
        layer = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer)
    return shown if shown.mode == "RGB" else shown.convert("RGB")
