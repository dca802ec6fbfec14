"""Bytes as people read them.

In: a number of bytes. Out: text with a decimal unit. Not here: other counts (`report.story`).
"""

__computes__ = False  # texts, not part of any stage's code
_UNITS = {1e12: "TB", 1e9: "GB", 1e6: "MB", 1e3: "kB"}


def in_bytes(number: float) -> str:
    """`6.02 GB`, `850 MB`, `12 B`: three significant digits of the largest unit that fits."""
    rounded = float(f"{number:.3g}")
    for factor, unit in _UNITS.items():
        if rounded >= factor:
            return f"{number / factor:#.3g} {unit}".replace(". ", " ")
    return f"{number:.0f} B"
