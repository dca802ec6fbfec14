"""What happens to pictures on their way through the web: scaled, cropped, recompressed, marked.

In: an RGB image, uint8 [height, width, 3], and what draws places. Out: the edited image; `EDITS`
names them all. Not here: which of them count as copies.
"""

from collections.abc import Callable

import cv2
import numpy as np

Image = np.ndarray
Edit = Callable[[Image, np.random.Generator], Image]


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def resized(image: Image, scale: float) -> Image:
    """All of the image, as tools resize it."""
    sides = [round(side * scale) for side in image.shape[1::-1]]
    return cv2.resize(image, sides, interpolation=cv2.INTER_AREA)


def stretched(image: Image, scale: float) -> Image:
    """As OpenCV resizes by a factor: up to half a pixel is lost at one end, or added."""
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def cropped(image: Image, share: float, rng: np.random.Generator) -> Image:
    """Keeps 1 - share of both sides, at a random place."""
    height, width = (round(side * (1 - share)) for side in image.shape[:2])
    top, left = (
        int(rng.integers(0, a - b + 1)) for a, b in zip(image.shape, (height, width), strict=False)
    )
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def levels(image: Image, gain: float, shift: float) -> Image:
    return np.clip(np.rint(image.astype(float) * gain + shift), 0, 255).astype(np.uint8)


def contrast(image: Image, gain: float) -> Image:
    mean = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    return levels(image, gain, mean * (1 - gain))


def grey(image: Image) -> Image:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


def bordered(image: Image, share: float, level: int) -> Image:
    width = max(1, round(min(image.shape[:2]) * share))
    return cv2.copyMakeBorder(image, *[width] * 4, cv2.BORDER_CONSTANT, value=(level,) * 3)


def watermarked(image: Image, alpha: float, rng: np.random.Generator) -> Image:
    scale = image.shape[1] / 512
    font, width = cv2.FONT_HERSHEY_SIMPLEX, max(1, round(scale * 2))
    (text_px, height_px), _ = cv2.getTextSize("(c) stock", font, scale, width)
    left = int(rng.integers(0, max(1, image.shape[1] - text_px)))
    bottom = int(rng.integers(height_px, image.shape[0] - 2))
    painted = image.copy()
    cv2.putText(painted, "(c) stock", (left, bottom), font, scale, (255,) * 3, width, cv2.LINE_AA)
    return np.rint(image * (1 - alpha) + painted * alpha).astype(np.uint8)


def rotated(image: Image, degrees: float) -> Image:
    """About the centre, enlarged until no corner is empty."""
    height, width = image.shape[:2]
    angle, longer = np.radians(degrees), max(width / height, height / width)
    scale = np.cos(angle) + np.sin(angle) * longer
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)


def one_side(image: Image, share: float, rng: np.random.Generator) -> Image:
    """Keeps that share of the width, at a random place."""
    width = round(image.shape[1] * share)
    left = int(rng.integers(0, image.shape[1] - width + 1))
    return np.ascontiguousarray(image[:, left : left + width])


def titled(image: Image) -> Image:
    """Large white letters across the picture."""
    scale = image.shape[1] / 256
    place, width = (round(20 * scale), round(0.55 * image.shape[0])), max(1, round(5 * scale))
    font = cv2.FONT_HERSHEY_SIMPLEX
    return cv2.putText(
        image.copy(), "SOLD OUT", place, font, 1.4 * scale, (255,) * 3, width, cv2.LINE_AA
    )


EDITS: dict[str, Edit] = {
    "JPEG 30": lambda image, rng: jpeg(image, 30),
    "JPEG 90": lambda image, rng: jpeg(image, 90),
    "resized by 0.5": lambda image, rng: resized(image, 0.5),
    "resized by 0.7": lambda image, rng: resized(image, 0.7),
    "resized by 0.9": lambda image, rng: resized(image, 0.9),
    "stretched by 0.9": lambda image, rng: stretched(image, 0.9),
    "cropped by 5%": lambda image, rng: cropped(image, 0.05, rng),
    "cropped by 10%": lambda image, rng: cropped(image, 0.10, rng),
    "cropped by 10%, JPEG 75": lambda image, rng: jpeg(cropped(image, 0.10, rng), 75),
    "cropped by 10%, one side": lambda image, rng: image[:, : round(0.9 * image.shape[1])].copy(),
    "brightness x 0.8": lambda image, rng: levels(image, 0.8, 0),
    "brightness x 1.15": lambda image, rng: levels(image, 1.15, 0),
    "brightness x 1.2": lambda image, rng: levels(image, 1.2, 0),
    "brightness + 40": lambda image, rng: levels(image, 1, 40),
    "brightness - 40": lambda image, rng: levels(image, 1, -40),
    "contrast x 0.8": lambda image, rng: contrast(image, 0.8),
    "contrast x 1.2": lambda image, rng: contrast(image, 1.2),
    "grey": lambda image, rng: grey(image),
    "border of 3%, grey": lambda image, rng: bordered(image, 0.03, 128),
    "border of 5%, white": lambda image, rng: bordered(image, 0.05, 255),
    "border of 10%, black": lambda image, rng: bordered(image, 0.10, 0),
    "watermark, half seen": lambda image, rng: watermarked(image, 0.5, rng),
    "watermark, white": lambda image, rng: watermarked(image, 1.0, rng),
    "mirrored": lambda image, rng: np.ascontiguousarray(image[:, ::-1]),
}
# Beyond what hashes and sketches are asked for: an embedding may propose them.
FURTHER_EDITS: dict[str, Edit] = {
    "cropped by 20%": lambda image, rng: cropped(image, 0.20, rng),
    "cropped by 25%, JPEG 75": lambda image, rng: jpeg(cropped(image, 0.25, rng), 75),
    "cropped by 30%": lambda image, rng: cropped(image, 0.30, rng),
    "cropped to 2/3 of the width": lambda image, rng: one_side(image, 2 / 3, rng),
    "cropped by 10%, brightness x 1.2": lambda image, rng: levels(
        cropped(image, 0.10, rng), 1.2, 0
    ),
    "rotated by 3 degrees": lambda image, rng: rotated(image, 3),
    "text across": lambda image, rng: titled(image),
}
