"""Decoding of images that nobody has checked yet.

In: encoded bytes from anywhere. Out: what curation wants to know of them (`ImageFacts`), or the
reason why they can't be decoded. Decoding happens in one worker process with a memory limit and a
clock, so that a decompression bomb, a crash of a codec or an endless loop costs one image and
never the run. `decode_rgb` is the plain decoder, for bytes that have passed.
"""

import contextlib
import functools
import io
import multiprocessing
import resource
import signal
import warnings
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from distillery.core.errors import DistilleryError
from distillery.data.colours import to_srgb, upper_bits
from distillery.data.dedupe.phash import hash_luma, small_luma
from distillery.data.dedupe.windows import sketch
from distillery.data.foreign import foreign_kind
from distillery.data.png import first_damaged_part

MAX_PIXELS = 2**26
# Of a packed text or colour profile in a PNG: programs that draw keep whole workflows there.
PngImagePlugin.MAX_TEXT_CHUNK = 2**24
MEMORY_LIMIT_BYTES = 2 * 2**30
TIME_LIMIT_S = 30.0
START_LIMIT_S = 300.0
_OTHERS_END = [-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)]
_TURNS = {  # EXIF 2.3, orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAP_BACKGROUND = "black"  # nothing, in maps of every kind: where they are transparent
# Formats that need no external program and that image collections hold; a fixed list, because
# Pillow also opens formats that run others (EPS) or read further files. Multi-picture files (MPO)
# open as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


class UndecodableError(Exception):
    """The bytes are no image, cut short, too large or of a format that is not accepted."""


@dataclass(frozen=True)
class ImageFacts:
    """Size as displayed, format, perceptual hash and sketch (`dedupe.windows`) of an image."""

    width_px: int
    height_px: int
    format: str
    phash: str
    sketch: bytes


def decode_rgb(data: bytes, background: str = "white") -> np.ndarray:
    """Decode to uint8 (H, W, 3) sRGB: first frame, EXIF orientation applied, alpha over a colour.

    Raises `UndecodableError` with the reason; an image of more than 2**26 pixels is refused by its
    header, before anything of its size is allocated.
    """
    return _decode(data, background)[0]


def _decode(data: bytes, background: str) -> tuple[np.ndarray, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_known_formats())
            if image.width * image.height > MAX_PIXELS:
                raise UndecodableError(f"{image.width} x {image.height} px, over {MAX_PIXELS} px")
            image.load()
            if image.format == "PNG" and (part := first_damaged_part(data)) is not None:
                raise UndecodableError(f"damaged PNG: the checksum of IDAT {part} is wrong")
            return np.asarray(_as_rgb(_upright(image), background)), image.format
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


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; of the other tags, also broken ones, nothing is read."""
    try:
        number = image.getexif().get(ExifTags.Base.Orientation)
        turn = _TURNS.get(number[0] if isinstance(number, bytes) else number)
    except Exception:  # tags that can't be parsed at all, which viewers ignore as well
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, background: str) -> Image.Image:
    """sRGB; transparent pixels become the background, grey of 9 to 16 bits is scaled to 8.

    What has no agreed range (32 bits, floats, signed numbers) would be clipped, so it is refused.
    """
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        image = Image.fromarray(upper_bits(image))
    if image.mode in ("I", "F"):
        raise UndecodableError("samples of 32 bits, signed or floats: save it with 8 or 16 bits")
    shown = to_srgb(image, profile)
    if shown.has_transparency_data:
        layer = shown.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert(
            "RGB"
        )
    return shown.convert("RGB")


def inspect_image(data: bytes) -> ImageFacts:
    """Decode in this process and describe; raises `UndecodableError`."""
    pixels, format_name = _decode(data, "white")
    height, width = pixels.shape[:2]
    luma = small_luma(pixels)
    return ImageFacts(width, height, format_name, hash_luma(luma), sketch(pixels, luma))


class Inspector:
    """`inspect_image` in a worker process; use as a context manager.

    A result is the facts, or a string: the reason why there are none. The worker is replaced when
    it dies or overruns, so results depend on nothing but the bytes. Costs about 0.1 ms per image
    on top of decoding, and 0.5 s to start.
    """

    def __init__(
        self, *, time_limit_s: float = TIME_LIMIT_S, memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    ) -> None:
        self._time_limit_s = time_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> "Inspector":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def inspect(self, data: bytes) -> ImageFacts | str:
        """Facts of the image, or why it can't be decoded."""
        if self._process is None:
            self._start()
        try:
            self._pipe.send_bytes(data)
            if self._pipe.poll(self._time_limit_s):
                return self._pipe.recv()
            reason = f"decoding takes more than {self._time_limit_s:g} s"
        except (EOFError, OSError):
            self._require_own_end()
            reason = "the decoder crashed on it"
        self._stop()
        return reason

    def _require_own_end(self) -> None:
        """Raise where others ended the worker: that says nothing of the picture."""
        self._process.join(START_LIMIT_S)
        if self._process.exitcode not in _OTHERS_END:
            return
        self._stop()
        raise DistilleryError(
            "the process that decodes images was killed, as the system does when memory runs out "
            "(dmesg says so); free memory and run again"
        )

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(far_end, self._memory_limit_bytes), daemon=True
        )
        # Ctrl-C goes to all processes of a terminal; this one ends its worker by itself. Python's
        # tracker is started before: its start, with the first process, lets the signal through.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        far_end.close()
        try:
            ready = self._pipe.poll(START_LIMIT_S) and self._pipe.recv() == "ready"
        except EOFError:
            ready = False
        if not ready:
            self._stop()
            raise DistilleryError(
                "the process that decodes images does not start; free memory and run again"
            )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, memory_limit_bytes: int) -> None:
    """The worker's loop: bytes in, facts or a reason out, until the pipe closes."""
    cv2.setNumThreads(1)
    statm = Path("/proc/self/statm")
    own_bytes = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0
    limit_bytes = own_bytes + memory_limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send("ready")
    with contextlib.suppress(EOFError):
        while True:
            data = pipe.recv_bytes()
            try:
                pipe.send(inspect_image(data))
            except UndecodableError as error:
                pipe.send(str(error))
            except MemoryError:
                pipe.send("needs more memory than the decoder may use")
