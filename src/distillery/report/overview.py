"""The first page: its first screen, its charts, what every family's students gained and lost.

In: results, gallery. Out: dicts for the templates. Not here: the words of the headline
(`headline`), the pages of one family each (`sections`).
"""

from collections.abc import Mapping
from typing import Any

from distillery.families import STUDENTS, TRAINED, Family
from distillery.families.names import LABELS, label
from distillery.metrics.catalog import CATALOG
from distillery.report import figures, headline
from distillery.report.differences import difference
from distillery.report.evidence import Results
from distillery.report.gallery import hero_strip
from distillery.report.prices import COSTS
from distillery.report.story import change, pretty

HERO_PROMPTS = 6
ROWS_PER_FAMILY = 3
QUALITIES = {
    "reader_shape": "shapes", "edge_f1": "edges", "miou": "regions", "kid": "KID",
    "kid_teacher": "KID to teacher", "lpips": "LPIPS", "lpips_pair": "LPIPS",
    "prediction_distance": "distance to teacher",
}  # fmt: skip
TEACHERS = ("teacher/guided", "teacher/control_canny")
NO_DIFFERENCE = ("none found", "tie")


def first_screen(run: Results, gallery: Mapping[str, Any]) -> dict[str, Any]:
    """All that `index.html` says of the run itself."""
    return {
        "headline": headline.headline(run),
        "certainty": headline.certainty(run),
        "student": headline.main_student(run),
        "tiles": headline.key_numbers(run),
        "gains": gains(run),
        "gallery": gallery,
        "gallery_first": _first_models(run, gallery),
        "hero": hero_strip(gallery, HERO_PROMPTS),
        **charts(run),
    }


def _first_models(run: Results, gallery: Mapping[str, Any]) -> list[str]:
    """What the gallery shows before anyone chooses: the teachers and each family's student."""
    mains = [family.main_student(run.variants()) for family in STUDENTS.values()]
    known = [model["id"] for model in gallery["models"]]
    wanted = [*TEACHERS, *mains]
    first = [name for name in known if name in wanted]
    return first if len(first) > 1 else [n for n in known if not n.startswith("reference/")][:4]


def charts(run: Results) -> dict[str, Any]:
    """Quality against cost, per family: {"family quality cost": SVG}, and what to choose from."""
    plots = {}
    for family in STUDENTS.values():
        own = run.variants(family.name)
        main = family.main_student(own)
        beside = [v for v in TEACHERS if v in run.variants()]
        is_whole, shown = not family.stage, family.shown
        replaced = (shown.teacher, shown.cost_baseline) if is_whole else None
        others = [s for f in TRAINED.values() if (s := f.main_student(run.variants()))]
        for quality in shown.qualities if own else ():
            for cost in shown.costs:
                is_total = is_whole and cost == "parameters_total"
                variants = [*beside, *(others if is_total else ()), *own]
                drawing = figures.quality_against_cost(run, quality, cost, variants, main, replaced)
                if drawing:
                    plots[f"{family.name} {quality} {cost}"] = drawing
    used = [set(column) for column in zip(*(key.split() for key in plots), strict=True)]
    families, qualities, prices = used or (set(), set(), set())
    return {
        "plots": plots,
        "plot_families": [(f.name, f.texts.title) for f in STUDENTS.values() if f.name in families],
        "qualities": [(k, v) for k, v in QUALITIES.items() if k in qualities],
        "costs": [(k, v.label) for k, v in COSTS.items() if k in prices],
    }


def gains(run: Results) -> list[dict[str, Any]]:
    """Per family of the run its first students: what they save, what of the quality they keep."""
    found = []
    for family in STUDENTS.values():
        students = _in_interest(family, run)
        if students:
            rows = [_row(family, student, run) for student in students[:ROWS_PER_FAMILY]]
            found.append(
                {"id": family.name, "title": family.texts.title, "rows": rows,
                 "size": COSTS[_size_of(family)].label,
                 "more": max(0, len(students) - ROWS_PER_FAMILY)}
            )  # fmt: skip
    return found


def _in_interest(family: Family, run: Results) -> list[str]:
    """The main student, those that only this user has, the family's known ones."""
    own = run.variants(family.name)
    main = family.main_student(own)
    users = [variant for variant in own if variant not in LABELS]
    known = [variant for variant in family.shown.students if variant in own]
    return list(dict.fromkeys([v for v in (main, *users, *known, *own) if v]))


def _row(family: Family, student: str, run: Results) -> dict[str, Any]:
    size = _size_of(family)
    replaced = family.shown.cost_baseline or family.shown.teacher
    time = "latency_s" if run.metric(student, "latency_s") else "train_step_s"
    at_work = _replaced_at_work(family, run)
    operations, _ = _change(run, student, at_work, "macs")
    saved, sizes = _change(run, student, replaced, size)
    faster, times = _change(run, student, at_work, time)
    quality = _quality(family, student, run)
    return {
        "id": student,
        "label": label(student),
        "size": saved,
        "size_of": sizes,
        "time": faster,
        "time_of": times,
        "operations": operations,
        "quality": quality,
        "alone": "" if quality else _why_alone(student, family.shown.teacher, run),
    }


def _size_of(family: Family) -> str:
    """The count that says most of the family's size."""
    counts = (name for name in family.shown.costs if name.startswith("parameters"))
    return next(counts, "parameters_total")


def _replaced_at_work(family: Family, run: Results) -> str:
    """What a student replaces when it draws: the family's own profile of the teacher, if any."""
    names = [*family.texts.labels, *(family.texts.baselines or {})]
    own = [f"{family.name}/{name}" for name in names if name.startswith("teacher")]
    return next((name for name in own if name in run.profiled()), family.shown.teacher)


def _change(run: Results, student: str, other: str, quantity: str) -> tuple[str, str]:
    """`−56%` and `3.49M → 1.54M`; "" where either has no such cost."""
    mine, theirs = run.metric(student, quantity), run.metric(other, quantity)
    if not mine or not theirs or not theirs["value"]:
        return "", ""
    before, after = pretty(quantity, theirs), pretty(quantity, mine)
    ends = f"{before.removesuffix(' ms')} → {after}"
    return change(mine["value"] / theirs["value"] - 1), ends


def _quality(family: Family, student: str, run: Results) -> dict[str, Any] | None:
    """The first quality that tells the student from its teacher, and how they differ in it."""
    teacher = family.shown.teacher
    name = headline.first_quality(run, student, [*family.shown.qualities, *CATALOG])
    if name is None or student == teacher:
        return None
    word, mark = _difference(run, student, teacher, name)
    return {
        "name": CATALOG[name].label,
        "mine": run.metric(student, name),
        "theirs": run.metric(teacher, name),
        "of": label(teacher),
        "word": word,
        "mark": mark,
    }


def _why_alone(student: str, teacher: str, run: Results) -> str:
    """Why a student's quality stands beside no other."""
    if student == teacher:
        return "the others of its family replace it"
    if teacher not in run.metrics:
        return f"{label(teacher)}, which it replaces, was not evaluated"
    return f"no metric tells it from {label(teacher)} here"


def _difference(run: Results, student: str, teacher: str, name: str) -> tuple[str, str]:
    margin = difference(run, student, teacher, name)
    if margin.low <= 0 <= margin.high:
        return NO_DIFFERENCE
    is_better = (margin.value > 0) == CATALOG[name].higher
    return ("better", "holds") if is_better else ("worse", "fails")
