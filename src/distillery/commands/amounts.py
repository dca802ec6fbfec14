"""Amounts as users write and read them: `790M`, `1.5e6`, `80G`, `2 stages`.

In: text. Out: a number, and the reverse. Which amounts make sense is the command's business.
"""

import math

from distillery.core.errors import DistilleryError

_SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12}
_EXAMPLES = {"--target-ms": "14.5 (milliseconds, without unit)", "--target-share": "0.5"}


def amount(text: str | float | None, option: str) -> float | None:
    """The number in `text`, with K, M, G, B or T after it where it is a count.

    Raises DistilleryError for anything else.
    """
    if text is None or isinstance(text, int | float):
        return text
    body, factor = text.strip(), 1.0
    if option not in _EXAMPLES and body and body[-1].upper() in "KMGBT":
        factor = _SUFFIXES[body[-1].upper().replace("K", "k")]
        body = body[:-1]
    try:
        value = float(body) * factor
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise DistilleryError(
            f"{option}: {text!r} is no amount above 0; write it like "
            + _EXAMPLES.get(option, "790M or 790e6")
        )
    return value


def at_least(value: float, digits: int = 6) -> str:
    """`value` rounded up, so that asked for as a target it is within reach."""
    last = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    return f"{math.ceil(value / last * (1 - 1e-9)) * last:.{digits}g}"  # 1e-9: 14.5 stays 14.5


def as_given(text: str | float) -> tuple[float, str]:
    """The unit of an amount as it was given: (factor, suffix), (1.0, "") for a plain number."""
    if isinstance(text, str) and text.strip()[-1].upper() in "KMGBT":
        suffix = text.strip()[-1]
        return _SUFFIXES[suffix.upper().replace("K", "k")], suffix
    return 1.0, ""


def counted(number: int, what: str) -> str:
    """`1 stage`, `2 stages`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
