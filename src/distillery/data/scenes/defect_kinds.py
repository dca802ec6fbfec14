"""The defects that can be planted, each as one small function of a clean sample.

In: a clean sample and uniform numbers of its own. Out: the sample with the defect, labelled.
Every function changes what its name says and nothing else, so that a filter which finds it is
measured alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from distillery.data.scenes.draw import draw_scene

STOCK_HOST = "image.shutterstock.com"
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Sample:
    """One record: encoded image `data`, caption and columns.

    `pixels` (H, W, 3) and `class_ids` (H, W) are the image before encoding and its segmentation;
    every defect that moves pixels moves the ids with them.
    """

    key: str
    url: str
    caption: str
    data: bytes
    extension: str
    width_px: int
    height_px: int
    scores: dict[str, float]
    pixels: np.ndarray
    class_ids: np.ndarray
    planted: str | None = None
    planted_of: str | None = None


def encode(image: Image.Image, kind: str, quality: int = JPEG_QUALITY) -> bytes:
    """Encode as "png", "jpg" (no chroma subsampling from quality 90 on) or lossless "webp"."""
    buffer = io.BytesIO()
    if kind == "png":
        image.save(buffer, "PNG")
    elif kind == "jpg":
        image.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2)
    else:
        image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def clean_sample(number: int, seed: int, size_px: int, uniforms: np.ndarray) -> Sample:
    """Scene `number` of `seed` with good synthetic scores, mostly as PNG or JPEG of quality 95."""
    scene = draw_scene(seed, number, size_px)
    extension = ("png", "png", "png", "jpg", "jpg", "webp")[int(uniforms[0] * 6)]
    scores = {
        "similarity": 0.30 + 0.08 * uniforms[1],
        "punsafe": 0.2 * uniforms[2],
        "pwatermark": 0.4 * uniforms[3],
        "aesthetic": 6.05 + 1.5 * uniforms[4],
    }
    return Sample(
        key=_key(number),
        url=_url(number, extension),
        caption=scene.caption,
        data=encode(Image.fromarray(scene.image), extension),
        extension=extension,
        width_px=size_px,
        height_px=size_px,
        scores={name: float(value) for name, value in scores.items()},
        pixels=scene.image,
        class_ids=scene.segmentation,
    )


def _key(number: int) -> str:
    return f"{number:09d}"


def _url(number: int, extension: str) -> str:
    return f"https://scenes.example/{number:09d}.{extension}"


def _with_image(sample: Sample, image: Image.Image, kind: str, **options) -> Sample:
    return replace(
        sample,
        data=encode(image, kind, **options),
        extension=kind,
        width_px=image.width,
        height_px=image.height,
    )


def _resized(sample: Sample, size: tuple[int, int]) -> Sample:
    ids = Image.fromarray(sample.class_ids).resize(size, Image.NEAREST)
    image = Image.fromarray(sample.pixels).resize(size, Image.BICUBIC)
    return replace(_with_image(sample, image, "png"), class_ids=np.asarray(ids))


def _with_score(name: str, low: float, high: float) -> Callable[[Sample, np.ndarray], Sample]:
    def change(sample: Sample, uniforms: np.ndarray) -> Sample:
        value = float(low + (high - low) * uniforms[5])
        return replace(sample, scores=sample.scores | {name: value})

    return change


def _near_duplicate_jpeg(sample: Sample, uniforms: np.ndarray) -> Sample:
    quality = 30 + int(uniforms[6] * 66)
    return _with_image(sample, Image.fromarray(sample.pixels), "jpg", quality=quality)


def _near_duplicate_resize(sample: Sample, uniforms: np.ndarray) -> Sample:
    """Between 0.75 and 1.5 times the size, never the same size."""
    factor = 0.75 + 0.15 * uniforms[6] if uniforms[7] < 0.5 else 1.1 + 0.4 * uniforms[6]
    size = tuple(max(1, round(factor * n)) for n in (sample.width_px, sample.height_px))
    return _resized(sample, size)


def _near_duplicate_crop(sample: Sample, uniforms: np.ndarray) -> Sample:
    """One to three sixty-fourths of the size are cut off at each of two sides."""
    rows = (1 + int(3 * uniforms[6])) * max(1, sample.height_px // 64)
    columns = (1 + int(3 * uniforms[7])) * max(1, sample.width_px // 64)
    top, left = uniforms[8] < 0.5, uniforms[9] < 0.5
    height, width = sample.pixels.shape[:2]
    kept = (
        slice(rows if top else 0, height if top else height - rows),
        slice(columns if left else 0, width if left else width - columns),
    )
    image = Image.fromarray(np.ascontiguousarray(sample.pixels[kept]))
    ids = np.ascontiguousarray(sample.class_ids[kept])
    return replace(_with_image(sample, image, "png"), class_ids=ids)


def _too_small(sample: Sample, uniforms: np.ndarray) -> Sample:
    side = sample.width_px // 4 + int(uniforms[6] * sample.width_px // 8)
    return _resized(sample, (side, side))


def _extreme_aspect(sample: Sample, uniforms: np.ndarray) -> Sample:
    """Five times as wide as high, or the other way round; the short side keeps its length."""
    width, height = sample.width_px, sample.height_px
    wide = uniforms[6] < 0.5
    return _resized(sample, (5 * width, height) if wide else (width, 5 * height))


def _broken(sample: Sample, uniforms: np.ndarray) -> Sample:
    """Bytes that are no image at all."""
    words = np.random.Generator(np.random.Philox(int(uniforms[6] * 2**53))).random(64)
    return replace(sample, data=words.tobytes())


def _truncated(sample: Sample, uniforms: np.ndarray) -> Sample:
    """A real file that stops between a third and two thirds of its length."""
    return replace(sample, data=sample.data[: int(len(sample.data) * (1 + uniforms[6]) / 3)])


def _wrong_extension(sample: Sample, uniforms: np.ndarray) -> Sample:
    return replace(sample, extension="jpg" if sample.extension != "jpg" else "png")


def _empty_caption(sample: Sample, uniforms: np.ndarray) -> Sample:
    return replace(sample, caption="" if uniforms[6] < 0.5 else "   ")


def _spam_caption(sample: Sample, uniforms: np.ndarray) -> Sample:
    spam = (
        "BUY NOW!!! FREE SHIPPING click here https://deals.example/?id=1 www.deals.example",
        "buy cheap buy cheap buy cheap buy cheap buy cheap buy cheap buy cheap buy cheap",
        "IMG_20190304_123456.jpg",
        "$$$ 90% OFF $$$ best price best price best price best price!!!",
    )
    return replace(sample, caption=spam[int(uniforms[6] * len(spam))])


def _with_mode(mode: str, kind: str) -> Callable[[Sample, np.ndarray], Sample]:
    def change(sample: Sample, uniforms: np.ndarray) -> Sample:
        image = Image.fromarray(sample.pixels)
        converted = image.quantize(64) if mode == "P" else image.convert(mode)
        return _with_image(sample, converted, kind)

    return change


def _stock_host(sample: Sample, uniforms: np.ndarray) -> Sample:
    return replace(sample, url=f"https://{STOCK_HOST}/{sample.key}.{sample.extension}")


# What each name does is the function's name; the scores' ranges are outside of every clean one.
DEFECTS: dict[str, Callable[[Sample, np.ndarray], Sample]] = {
    "exact_duplicate": lambda sample, uniforms: sample,
    "near_duplicate_jpeg": _near_duplicate_jpeg,
    "near_duplicate_resize": _near_duplicate_resize,
    "near_duplicate_crop": _near_duplicate_crop,
    "unsafe": _with_score("punsafe", 0.9, 1.0),
    "watermark": _with_score("pwatermark", 0.9, 1.0),
    "low_aesthetic": _with_score("aesthetic", 2.0, 4.5),
    "low_similarity": _with_score("similarity", 0.05, 0.2),
    "too_small": _too_small,
    "extreme_aspect": _extreme_aspect,
    "broken": _broken,
    "truncated": _truncated,
    "wrong_extension": _wrong_extension,
    "empty_caption": _empty_caption,
    "spam_caption": _spam_caption,
    "mode_gray": _with_mode("L", "png"),
    "mode_rgba": _with_mode("RGBA", "png"),
    "mode_palette": _with_mode("P", "png"),
    "mode_cmyk": _with_mode("CMYK", "jpg"),
    "stock_host": _stock_host,
}


def is_duplicate(name: str) -> bool:
    """Whether the defect copies another record."""
    return "duplicate" in name


def plant(name: str, sample: Sample, uniforms: np.ndarray, number: int | None = None) -> Sample:
    """The sample with defect `name`; a duplicate becomes record `number` with a URL of its own."""
    changed = replace(DEFECTS[name](sample, uniforms), planted=name)
    if number is None:
        return changed
    url = _url(number, changed.extension)
    return replace(changed, key=_key(number), url=url, planted_of=sample.key)
