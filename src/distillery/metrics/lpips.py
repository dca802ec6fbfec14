"""LPIPS of images in pairs, by the network that is at hand.

In: uint8 images [n, H, W, 3] in pairs. Out: one distance per pair. Torch is not imported. Not here:
the networks and the distance (`lpips_networks`).
"""

from distillery.metrics.meter import LPIPS, PAIRS, Meter, needing

LPIPS_DISTANCE = Meter(
    needs={"lpips": needing(PAIRS, LPIPS)},
    values=lambda chunk, tools: {"lpips": tools.lpips(chunk.images, chunk.reference)},
    settings=lambda tools, columns: tools.lpips.settings(),
)
