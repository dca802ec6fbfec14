"""The first screen in words: what was made smaller, by how much, at what cost in quality.

In: results. Out: a headline, a sentence about certainty, and key numbers; all from the metrics, so
that a model that got worse is said to be worse. Not here: layout.
"""

import math
from collections.abc import Mapping
from typing import Any

from distillery.families import STUDENTS, family_of
from distillery.metrics.shape_probe import describe, why_shut
from distillery.report.evidence import Metric, Results

TINY = 5e-5
TEACHER = "teacher/guided"
# Metric, what it counts, whether a share in percent reads well.
QUALITIES = (
    ("reader_shape", "draws {} of the shapes asked for", "its teacher draws {}", True),
    ("edge_f1", "follows the edges with an F1 of {}", "its teacher with {}", False),
    ("clip_score", "has a CLIP score of {}", "its teacher has {}", False),
    ("kid", "has a KID of {} to real images", "its teacher has {}", False),
)
TILES = (
    ("parameters_unet", "U-Net parameters"),
    ("parameters_adapter", "ControlNet parameters"),
    ("parameters_total", "parameters of the pipeline"),
    ("macs", "operations per evaluation"),
    ("latency_s", "time per evaluation"),
)


def main_student(results: Results) -> str | None:
    """The student the page is about: the whole one, ELR's, or the first there is."""
    variants = results.variants()
    mains = [s for f in STUDENTS.values() if (s := f.main_student(variants))]
    others = [variant for variant in variants if not variant.startswith("teacher/")]
    return next(iter([*mains, *others]), None)


def teacher_of(student: str | None) -> str:
    """What a student is compared with."""
    family = family_of(student or "")
    return family.shown.teacher if family and family.shown else TEACHER


def cost_of_teacher(results: Results, student: str, quantity: str) -> Metric | None:
    """A cost of what the student replaces: of its family's baseline, or of its teacher."""
    family = family_of(student)
    if family and family.shown and not family.stage:
        cost = results.metric(family.shown.cost_baseline, quantity)
        return cost or results.metric(family.shown.teacher, quantity)
    return results.metric(teacher_of(student), quantity)


def main_quality(results: Results, student: str) -> tuple | None:
    """The first of `QUALITIES` that both models have, and that may decide."""
    for quality in QUALITIES:
        pair = [results.metric(v, quality[0]) for v in (student, teacher_of(student))]
        if all(metric and not why_shut(metric["settings"]) for metric in pair):
            return quality
    return None


def headline(results: Results) -> str:
    """One sentence from the counts and the main quality."""
    student = main_student(results)
    if student is None:
        return "No student has been evaluated yet."
    is_whole = student.startswith("whole/")
    parts = []
    size = "parameters_total" if is_whole else "parameters_unet"
    if (fewer := reduction(results, student, size)) is not None:
        word = "fewer" if fewer >= 0 else "more"
        parts.append(f"has {abs(fewer):.0%} {word} parameters than its teacher")
    if quality := main_quality(results, student):
        name, mine, theirs, is_share = quality
        pair = (student, teacher_of(student))
        values = [_shown(results.metric(v, name)["value"], is_share) for v in pair]
        parts.append(f"{mine.format(values[0])}; {theirs.format(values[1])}")
    who = "The whole student" if is_whole else "The student U-Net"
    return f"{who} {' and '.join(parts)}." if parts else "Nothing was measured yet."


def _shown(value: float, is_share: bool) -> str:
    return f"{value:.0%}" if is_share else number(value)


def certainty(results: Results) -> str:
    """How far the headline's difference can be trusted."""
    student = main_student(results)
    if student is None or (quality := main_quality(results, student)) is None:
        return ""
    mine, theirs = (results.metric(v, quality[0]) for v in (student, teacher_of(student)))
    low = mine["ci_low"] - theirs["ci_high"]
    high = mine["ci_high"] - theirs["ci_low"]
    apart = "The intervals do not overlap" if low > 0 or high < 0 else "The intervals overlap"
    num_seeds = len(mine["seeds"])
    seeds = f"{num_seeds} training seeds" if num_seeds > 1 else "one training seed"
    return (
        f"{apart}: {interval(mine)} for the student, {interval(theirs)} for the teacher "
        f"(95%, n = {mine['n']} images, {seeds})."
    )


def probe_line(results: Results) -> str:
    """A sentence about the teacher's CLIP, where CLIP scores come from it; "" elsewhere."""
    scores = (results.metric(variant, "clip_score") for variant in results.variants())
    settings = next((metric["settings"] for metric in scores if metric), {})
    probe = describe(settings)
    return f"Scores of {settings['extractor']}: {probe}." if probe else ""


def reduction(results: Results, student: str, quantity: str) -> float | None:
    """1 - student / teacher of a cost, or None."""
    mine, theirs = results.metric(student, quantity), cost_of_teacher(results, student, quantity)
    return None if not mine or not theirs else 1 - mine["value"] / theirs["value"]


def key_numbers(results: Results) -> list[dict[str, str]]:
    """Tiles of the main student: {"value", "what", "detail"}."""
    if (student := main_student(results)) is None:
        return []
    tiles = []
    for quantity, what in TILES:
        mine = results.metric(student, quantity)
        theirs = cost_of_teacher(results, student, quantity)
        if mine and theirs and theirs["value"] and mine["value"]:
            tiles.append(
                {"value": change(mine["value"] / theirs["value"] - 1), "what": what,
                 "detail": f"{pretty(quantity, theirs)} → {pretty(quantity, mine)}"}
            )  # fmt: skip
    return tiles


def change(share: float) -> str:
    """A share as a signed percentage: `−56%`, `+4%`, `±0%`."""
    return f"{share:+.0%}".replace("-", "−") if round(share, 2) else "±0%"


def pretty(quantity: str, metric: Mapping[str, Any]) -> str:
    """A cost with its unit."""
    if quantity.endswith("_s"):
        return f"{number(1000 * metric['value'])} ms"
    return si(metric["value"]) + ("B" if "bytes" in quantity else "")


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
