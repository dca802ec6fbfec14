"""What of a picture is compared: 64 x 64 pixels.

In: an RGB image. Out: its thumbnail in YCrCb, alike for copies of any size. Not here: comparing.
"""

import functools

import cv2
import numpy as np

SIDE_PX = 64


def thumbnail(image: np.ndarray) -> np.ndarray:
    """uint8 (64, 64, 3) YCrCb of an RGB image; area-averaged, aspect ratio ignored.

    A side of less than 64 px is enlarged (`_enlarging`): means of parts of its pixels would move
    edges by a quarter of a pixel.
    """
    converted = cv2.cvtColor(image, cv2.COLOR_RGB2YCrCb)
    sides = [min(side, SIDE_PX) for side in image.shape[:2]]
    reduced = cv2.resize(converted, sides[::-1], interpolation=cv2.INTER_AREA)
    if min(sides) == SIDE_PX:
        return reduced
    rows, columns = (_enlarging(side) for side in sides)
    channels = [rows @ channel @ columns.T for channel in reduced.transpose(2, 0, 1)]
    return np.rint(np.stack(channels, axis=-1)).clip(0, 255).astype(np.uint8)


@functools.lru_cache
def _enlarging(size: int) -> np.ndarray:
    """(64, size): means of 64 cells of the quadratic spline whose means are those of the pixels.

    It is the slope of the natural cubic spline through the sums of the first k pixels
    (histopolation: de Boor, "A Practical Guide to Splines", 1978, chapter VIII), so that no
    pixel's light is lost, and a copy of another size has its edges in the same places.
    """
    sums = np.vstack([np.zeros(size), np.tri(size)])
    system = 4 * np.eye(size + 1) + np.eye(size + 1, k=1) + np.eye(size + 1, k=-1)
    system[0], system[-1] = np.eye(size + 1)[[0, -1]]
    bends = np.zeros_like(sums)
    bends[1:-1] = 6 * (sums[:-2] - 2 * sums[1:-1] + sums[2:])
    curvature = np.linalg.solve(system, bends)
    edges = np.linspace(0, size, SIDE_PX + 1)
    knot = np.minimum(edges.astype(int), size - 1)
    after = (edges - knot)[:, None]
    before = 1 - after
    values = before * sums[knot] + after * sums[knot + 1]
    values += (before**3 - before) * curvature[knot] / 6
    values += (after**3 - after) * curvature[knot + 1] / 6
    return np.diff(values, axis=0) * (SIDE_PX / size)
