"""The first screen in words: what was made smaller, by how much, at what cost in quality.

In: results. Out: a headline, a sentence about certainty, and key numbers; all from the metrics, so
that a model that got worse is said to be worse. Not here: layout.
"""

import math
from collections.abc import Mapping
from typing import Any

from distillery.report.evidence import Results

TINY = 5e-5
STUDENT, TEACHER = "unet/elr", "teacher/guided"
# Metric, what it counts, whether a share in percent reads well.
QUALITIES = (
    ("reader_shape", "draws {} of the shapes asked for", "its teacher draws {}", True),
    ("clip_score", "has a CLIP score of {}", "its teacher has {}", False),
    ("kid", "has a KID of {} to real images", "its teacher has {}", False),
)


def main_student(results: Results) -> str | None:
    """The student the page is about: ELR's, or the first one there is."""
    students = [v for v in results.variants() if not v.startswith("teacher/")]
    return STUDENT if STUDENT in students else next(iter(students), None)


def main_quality(results: Results, student: str) -> tuple | None:
    """The first of `QUALITIES` that both models have."""
    for quality in QUALITIES:
        if results.metric(student, quality[0]) and results.metric(TEACHER, quality[0]):
            return quality
    return None


def headline(results: Results) -> str:
    """One sentence from the counts and the main quality."""
    student = main_student(results)
    if student is None:
        return "No student has been evaluated yet."
    parts = []
    if (fewer := reduction(results, student, "parameters_unet")) is not None:
        word = "fewer" if fewer >= 0 else "more"
        parts.append(f"has {abs(fewer):.0%} {word} parameters than its teacher")
    if quality := main_quality(results, student):
        name, mine, theirs, is_share = quality
        values = [_shown(results.metric(v, name)["value"], is_share) for v in (student, TEACHER)]
        parts.append(f"{mine.format(values[0])}; {theirs.format(values[1])}")
    return f"The student U-Net {' and '.join(parts)}." if parts else "Nothing was measured yet."


def _shown(value: float, is_share: bool) -> str:
    return f"{value:.0%}" if is_share else number(value)


def certainty(results: Results) -> str:
    """How far the headline's difference can be trusted."""
    student = main_student(results)
    if student is None or (quality := main_quality(results, student)) is None:
        return ""
    mine, theirs = (results.metric(v, quality[0]) for v in (student, TEACHER))
    low = mine["ci_low"] - theirs["ci_high"]
    high = mine["ci_high"] - theirs["ci_low"]
    apart = "The intervals do not overlap" if low > 0 or high < 0 else "The intervals overlap"
    num_seeds = len(mine["seeds"])
    seeds = f"{num_seeds} training seeds" if num_seeds > 1 else "one training seed"
    return (
        f"{apart}: {interval(mine)} for the student, {interval(theirs)} for the teacher "
        f"(95%, n = {mine['n']} images, {seeds})."
    )


def reduction(results: Results, student: str, quantity: str) -> float | None:
    """1 - student / teacher of a cost, or None."""
    mine, theirs = (results.metric(v, quantity) for v in (student, TEACHER))
    return None if not mine or not theirs else 1 - mine["value"] / theirs["value"]


def key_numbers(results: Results) -> list[dict[str, str]]:
    """Tiles: {"value", "what", "detail"}."""
    if (student := main_student(results)) is None:
        return []
    tiles = []
    for quantity, what in (
        ("parameters_unet", "U-Net parameters"),
        ("parameters_total", "parameters of the pipeline"),
        ("macs", "operations per evaluation"),
        ("latency_s", "time per evaluation"),
    ):
        mine, theirs = (results.metric(v, quantity) for v in (student, TEACHER))
        if mine and theirs:
            share = mine["value"] / theirs["value"] - 1
            tiles.append(
                {"value": _change(share), "what": what,
                 "detail": f"{_pretty(quantity, theirs)} → {_pretty(quantity, mine)}"}
            )  # fmt: skip
    return tiles


def _change(share: float) -> str:
    """`−56%`, `+4%`, `±0%`."""
    return f"{share:+.0%}".replace("-", "−") if round(share, 2) else "±0%"


def _pretty(quantity: str, metric: Mapping[str, Any]) -> str:
    if quantity.endswith("_s"):
        return f"{number(1000 * metric['value'])} ms"
    return si(metric["value"])


def si(value: float) -> str:
    """3.49M, 1,290M, 402G."""
    for factor, unit in ((1e12, "T"), (1e10, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{number(value / (1e9 if unit == 'G' else factor))}{unit}"
    return number(value) if value else "0"


def number(value: float | str | None) -> str:
    """Three significant digits, a true minus; an em dash for nothing."""
    if value is None or value == "":
        return "—"
    if abs(value) < TINY:
        return "0"
    text = f"{value:#.3g}" if abs(value) < 999.5 else f"{value:,.0f}"
    return text.rstrip(".").replace("-", "−")


def decimals(low: float, high: float) -> int | None:
    """Decimals that an interval of this width deserves (Particle Data Group's rule, roughly).

    Its half width keeps one digit, two if the first is a 1 or a 2; None if it has no width.
    """
    half = (high - low) / 2
    if half <= 0:
        return None
    exponent = math.floor(math.log10(half))
    return max(0, -exponent + (half / 10**exponent < 3))


def _fixed(value: float, places: int | None) -> str:
    if places is None:
        return number(value)
    text = f"{value:,.{places}f}".replace("-", "−")
    return text.lstrip("−") if not text.strip("−0.,") else text


def estimate(metric: Mapping[str, Any]) -> str:
    """The value of a metric, to the digits that its interval allows."""
    return _fixed(metric["value"], decimals(metric["ci_low"], metric["ci_high"]))


def interval(metric: Mapping[str, Any]) -> str:
    """`0.55 to 0.67`."""
    places = decimals(metric["ci_low"], metric["ci_high"])
    return f"{_fixed(metric['ci_low'], places)} to {_fixed(metric['ci_high'], places)}"
