"""Maps that are nearly black from the first to the last, which networks and metrics take as empty.

In: encoded maps of the user's. Out: a line for people, or nothing. Values of 0 and 1, class ids in
grey and millimetres in 16 bits end so. One bright map among them is enough, so that usually one is
decoded. Not here: changing maps.
"""

from collections.abc import Iterable

from distillery.data.images import MAP_BACKGROUND, UndecodableError, decode_rgb

DARK = 32  # of 255


def brightest_of_dark(maps: Iterable[bytes]) -> int | None:
    """The brightest value where all maps stay below `DARK`; None for brighter ones, or for none."""
    brightest = None
    for data in maps:
        try:
            value = int(decode_rgb(data, MAP_BACKGROUND).max())
        except UndecodableError:  # said where the map is used
            continue
        if value >= DARK:
            return None
        brightest = max(value, brightest or 0)
    return brightest


def dark_line(maps: str, brightest: int | None) -> str:
    """What to do about it; empty where `brightest` is None."""
    if brightest is None:
        return ""
    return (
        f"{maps}: no value is above {brightest} of 255, so nearly nothing is seen; stretch the "
        "values over the range (masks: 0 and 255, segmentations: colours)"
    )
