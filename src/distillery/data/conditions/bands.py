"""Maps of large pictures, drawn band by band.

In: what draws a map, and how far one of its pixels looks. Out: the same map, of a picture of more
than four megapixels without numbers of its whole size in memory. Not here: what is drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

_BAND_PIXELS = 2**22


def draw_in_bands(
    draw: Callable[[np.ndarray], np.ndarray], image: np.ndarray, reach_px: int
) -> np.ndarray:
    """`draw(image)`, uint8 (H, W, 3), of which a pixel looks `reach_px` rows up and down."""
    import numpy as np

    height, width = image.shape[:2]
    num_rows = max(1, _BAND_PIXELS // width)
    if height <= num_rows:
        return draw(image)
    drawn = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, num_rows):
        first, bottom = max(0, top - reach_px), min(top + num_rows, height)
        band = draw(image[first : bottom + reach_px])
        drawn[top:bottom] = band[top - first : bottom - first]
    return drawn
