"""The first screen in words: what was made smaller, by how much, at what cost in quality.

In: results. Out: a headline, a sentence about certainty, and key numbers; all from the metrics, so
that a model that got worse is said to be worse. A metric in which the teacher itself does no better
than chance says nothing of a student, and is passed over. Not here: layout, numbers (`story`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from distillery.families import STUDENTS, Family, family_of
from distillery.families.names import UNCONTROLLED, label, takes_maps
from distillery.metrics.catalog import CATALOG
from distillery.metrics.shape_probe import why_shut
from distillery.report.differences import difference
from distillery.report.evidence import Metric, Results
from distillery.report.prices import COSTS
from distillery.report.story import change, interval, is_of_few, number, pretty

TEACHER = "teacher/guided"
MIN_SHARE = 0.05  # a teacher whose recall or F1 may be below this does nothing to be kept
TILES = ("parameters_unet", "parameters_adapter", "parameters_total", "macs", "latency_s")


@dataclass(frozen=True)
class Quality:
    """A metric in words: `mine` about the student, `theirs` about its teacher, "" where the metric
    itself compares with the teacher. `is_share`: reads well in percent."""

    name: str
    mine: str
    theirs: str = ""
    is_share: bool = False


QUALITIES = (
    Quality("reader_shape", "draws {} of the shapes asked for", "its teacher draws {}", True),
    Quality("edge_f1", "follows the edges with an F1 of {}", "its teacher with {}"),
    Quality(
        "prediction_distance",
        "its predictions differ from its teacher's by {} of their energy",
        is_share=True,
    ),
    Quality("clip_score", "has a CLIP score of {}", "its teacher has {}"),
    Quality("ssim_pair", "its images have an SSIM of {} to its teacher's"),
    Quality("ssim", "its images have an SSIM of {} to its teacher's"),
    Quality("kid", "has a KID of {} to real images", "its teacher has {}"),
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


def main_quality(results: Results, student: str) -> Quality | None:
    """The first that says something here, and that may decide: the family's own, `QUALITIES`."""
    family = family_of(student)
    first = family.shown.qualities[0] if family and family.shown else ""
    ordered = sorted(QUALITIES, key=lambda quality: quality.name != first)
    return next((quality for quality in ordered if _tells(results, student, quality)), None)


def _tells(results: Results, student: str, quality: Quality) -> bool:
    """Whether both models have the metric, and the teacher is better in it than chance."""
    teacher = teacher_of(student)
    mine, theirs = (results.metric(v, quality.name) for v in (student, teacher))
    if mine and is_of_few(mine):
        return False
    if not quality.theirs:
        return bool(mine)
    if not mine or not theirs or why_shut(mine["settings"]) or why_shut(theirs["settings"]):
        return False
    metric = CATALOG[quality.name]
    if quality.name.startswith(("reader", "edge")) and theirs["ci_low"] < MIN_SHARE:
        return False
    chance = results.metric(UNCONTROLLED, quality.name) if takes_maps(student) else None
    is_about_maps = metric.follows_maps and chance and teacher != UNCONTROLLED
    return not (is_about_maps and theirs["value"] <= chance["value"])


def headline(results: Results) -> str:
    """One sentence from the counts and the main quality."""
    student = main_student(results)
    if student is None:
        return "No student has been evaluated yet."
    size, quality = size_words(results, student), _quality_words(results, student)
    if not size and not quality:
        return "Nothing was measured yet."
    if not size and quality.startswith("its "):
        return f"{_who(student)}: {quality}."
    between = ", and " if quality.startswith("its ") else " and "
    return f"{_who(student)} {between.join(part for part in (size, quality) if part)}."


def _who(student: str) -> str:
    known = {"whole/": "The whole student", "unet/": "The student U-Net"}
    return next((v for k, v in known.items() if student.startswith(k)), f"“{label(student)}”")


def size_words(results: Results, student: str) -> str:
    """`has 56% fewer parameters than its teacher`; "" where nothing was counted."""
    family = family_of(student)
    for baseline, quantity in _costs_of(family):
        mine, theirs = results.metric(student, quantity), results.metric(baseline, quantity)
        if not mine or not theirs or not theirs["value"]:
            continue
        share = 1 - mine["value"] / theirs["value"]
        if quantity.startswith("parameters"):
            verb, less = "has", "fewer"
        else:
            verb, less = "takes", "less"
        what = "parameters" if student.startswith(("whole/", "unet/")) else COSTS[quantity].label
        than = "its teacher" if "teacher" in baseline else label(baseline)
        return f"{verb} {abs(share):.0%} {less if share >= 0 else 'more'} {what} than {than}"
    return ""


def _costs_of(family: Family | None) -> list[tuple[str, str]]:
    """(What a cost is compared with, the cost), in the order of how much it says."""
    if family is None or family.shown is None:
        return [(TEACHER, "parameters_total")]
    baselines = [b for b in (family.shown.cost_baseline, family.shown.teacher) if b]
    return [(baseline, name) for baseline in baselines for name in family.shown.costs]


def _quality_words(results: Results, student: str) -> str:
    quality = main_quality(results, student)
    if quality is None:
        return ""
    mine, theirs = (results.metric(v, quality.name) for v in (student, teacher_of(student)))
    said = quality.mine.format(_shown(mine["value"], quality.is_share))
    if not quality.theirs:
        return said
    return f"{said}; {quality.theirs.format(_shown(theirs['value'], quality.is_share))}"


def _shown(value: float, is_share: bool) -> str:
    return f"{value:.0%}" if is_share else number(value)


def certainty(results: Results) -> str:
    """How far the headline's difference can be trusted."""
    student = main_student(results)
    if student is None or (quality := main_quality(results, student)) is None:
        return ""
    mine = results.metric(student, quality.name)
    num_seeds = len(mine["seeds"])
    seeds = f"{num_seeds} training seeds" if num_seeds > 1 else "one training seed"
    if not quality.theirs:
        basis = f"(95%, n = {mine['n']} images, {seeds})"
        return f"{CATALOG[quality.name].label}: {interval(mine)} {basis}."
    teacher = teacher_of(student)
    theirs = results.metric(teacher, quality.name)
    found = difference(results, student, teacher, quality.name)
    likely = "within" if found.low <= 0 <= found.high else "more than"
    return (
        f"The difference is {likely} chance, "
        f"{interval({'ci_low': found.low, 'ci_high': found.high})}: {interval(mine)} for the "
        f"student, {interval(theirs)} for the teacher (95%, n = {found.n}, {found.kind}, {seeds})."
    )


def key_numbers(results: Results) -> list[dict[str, str]]:
    """Tiles of the main student: {"value", "what", "detail"}."""
    if (student := main_student(results)) is None:
        return []
    tiles = []
    for quantity in TILES:
        mine, theirs = (
            results.metric(student, quantity),
            cost_of_teacher(results, student, quantity),
        )
        if mine and theirs and theirs["value"] and mine["value"]:
            tiles.append(
                {"value": change(mine["value"] / theirs["value"] - 1),
                 "what": COSTS[quantity].label,
                 "detail": f"{pretty(quantity, theirs)} → {pretty(quantity, mine)}"}
            )  # fmt: skip
    return tiles


def first_quality(results: Results, student: str, names: Sequence[str]) -> str | None:
    """The first of `names` that the student has and that tells it from its teacher."""
    words = {quality.name: quality for quality in QUALITIES}
    for name in names:
        mine = results.metric(student, name)
        if results.metric(teacher_of(student), name) is None or not mine or is_of_few(mine):
            continue
        if name not in words or _tells(results, student, words[name]):
            return name
    return None
