"""`distillery compare A B --html FILE`: two runs in one page, with their pictures side by side.

In: a comparison, the two runs' names and folders. Out: one HTML file that needs nothing else.
Pictures come from `samples/`, which a Git revision does not have; then the page says so.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillery.commands.amounts import counted
from distillery.commands.changes import rows
from distillery.commands.compare.open import path_of
from distillery.commands.compare.runs import Comparison, Move, compare_runs
from distillery.commands.compare.text import by_model, of_changed
from distillery.core.artifacts import require_outside
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.families import STUDENTS
from distillery.families.names import label
from distillery.metrics.catalog import CATALOG, label_of
from distillery.report import story
from distillery.report.evidence import read_run
from distillery.report.gallery import read_gallery
from distillery.report.page import stylesheet
from distillery.report.templating import environment

NUM_PROMPTS = 6
MAX_MODELS = 8
NO_PICTURES = (
    "Both runs must be folders with samples/ of the same prompts; metrics of a revision come "
    "without its images."
)


def write_html(before: str, after: str, out: Path) -> str:
    """Write the page to `out`; returns what to say of it."""
    if out.is_dir():
        raise DistilleryError(f"{out}: is a folder; name a file, such as compare.html")
    require_outside(out)
    found = compare_runs(before, after)
    page = environment(autoescape=True)
    page.filters |= {
        "number": story.number, "metric_name": label_of, "model_label": label, "mark": _mark,
    }  # fmt: skip
    text = page.get_template("compare.html").render(_context(found, before, after))
    with publish(out) as partial:
        partial.write_text(text, encoding="utf-8")
    return f"{out}: {_headline(found)}"


def _context(found: Comparison, before: str, after: str) -> dict[str, Any]:
    quiet = [move for move in of_changed(found) if not move.moved]
    return {
        "style": stylesheet(),
        "names": _names(before, after),
        "headline": _headline(found),
        "params": rows(found.params),
        "moved": [move for move in found.moves if move.moved and not move.is_time],
        "still": quiet,
        "times": [move for move in found.moves if move.moved and move.is_time],
        "num_compared": sum(not move.is_time for move in found.moves),
        "pictures": _pictures(found, before, after),
        "no_pictures": NO_PICTURES,
        "lost": [
            (name, by_model(only))
            for name, only in zip(
                _names(before, after), (found.only_before, found.only_after), strict=True
            )
        ],
    }


def _names(before: str, after: str) -> list[str]:
    """What people call the two: the last part of a folder where that tells them apart."""
    short = [Path(name).resolve().name if Path(name).is_dir() else name for name in (before, after)]
    return short if short[0] != short[1] else [before, after]


def _headline(found: Comparison) -> str:
    moved = [move for move in found.moves if move.moved and not move.is_time]
    keys = f"{counted(len(found.params), 'key')} changed"
    if not moved:
        return f"{keys}, and nothing moved beyond its interval."
    marks = [_mark(move) for move in moved]
    better, worse = marks.count("holds"), marks.count("fails")
    rest = f", {len(moved) - better - worse} otherwise" if better + worse < len(moved) else ""
    ways = f"{better} to the better, {worse} to the worse{rest}"
    return f"{keys}; {counted(len(moved), 'metric')} moved: {ways}."


def _mark(move: Move) -> str:
    """The style of a difference: better, worse, or neither."""
    if not move.moved or move.metric not in CATALOG:
        return ""
    return "holds" if (move.difference > 0) == CATALOG[move.metric].higher else "fails"


def _pictures(found: Comparison, before: str, after: str) -> list[dict[str, Any]]:
    """Rows of both runs' images of the same prompts, of the models that changed or moved first."""
    folders = [Path(before), Path(after)]
    if not all(_has_samples(folder) for folder in folders):
        return []
    runs = [read_run(folder / path_of(folder, "metrics"), "", ()) for folder in folders]
    galleries = [
        read_gallery(folder / path_of(folder, "samples"), run, NUM_PROMPTS)
        for folder, run in zip(folders, runs, strict=True)
    ]
    prompts = [p for p in galleries[0]["prompts"] if p in galleries[1]["prompts"]]
    known = [{model["id"]: model for model in gallery["models"]} for gallery in galleries]
    wanted = [m for m in _in_interest(found, runs[1].variants()) if all(m in k for k in known)]
    names = _names(before, after)
    return [
        {
            "label": label(model),
            "prompts": prompts,
            "rows": [
                {"name": name, "images": _images(gallery, side[model], prompts)}
                for name, gallery, side in zip(names, galleries, known, strict=True)
            ],
        }
        for model in (wanted[:MAX_MODELS] if prompts else [])
    ]


def _has_samples(folder: Path) -> bool:
    return folder.is_dir() and (folder / path_of(folder, "samples")).is_dir()


def _images(gallery: dict[str, Any], model: dict[str, Any], prompts: Sequence[str]) -> list[str]:
    places = {prompt: place for place, prompt in enumerate(gallery["prompts"])}
    return [model["images"][places[prompt]] for prompt in prompts]


def _in_interest(found: Comparison, variants: list[str]) -> list[str]:
    """Models whose params changed, that moved, and every family's main student."""
    moved = [move.model for move in found.moves if move.moved and not move.is_time]
    mains = [family.main_student(variants) for family in STUDENTS.values()]
    return list(dict.fromkeys([*found.changed_models, *moved, *(m for m in mains if m)]))
