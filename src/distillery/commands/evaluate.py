"""How good images are: two folders in, the metrics contract and a table out.

In: folders of images, prompts, condition maps, names of networks. Out: a JSON file, and the same as
text. Not here: the metrics (`metrics.folders`), the evaluation of the pipeline's models
(`stages.evaluate`).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.core.artifacts import require_outside, write_json
from distillery.core.errors import DistilleryError
from distillery.core.progress import bar
from distillery.data.conditions import KINDS
from distillery.data.conditions.dark import brightest_of_dark, dark_line
from distillery.data.image_folders import list_images

if TYPE_CHECKING:
    from distillery.metrics.folders import Given


def evaluate(
    images: Path,
    reference: Path,
    out: Path,
    given: "Given | None" = None,
    *,
    metrics: str | None = None,
) -> dict[str, Any]:
    """Measure, write `out` and return what was written; `metrics` are names with commas between.

    Raises DistilleryError as `evaluate_folders` does, before anything is written.
    """
    from distillery.metrics.folders import Given, evaluate_folders

    given = given or Given()
    require_outside(out)
    folders = [images, reference, *([given.conditions] if given.conditions else [])]
    shared = set.intersection(*(set(list_images(folder)) for folder in folders))
    named = [name.strip() for name in metrics.split(",")] if metrics else None
    if given.conditions:
        _check_maps(given.conditions, given.condition_kind)
    if named and not all(named):
        raise DistilleryError(f"--metrics {metrics}: an empty name; put one comma between two")
    with bar(len(shared) * len(folders), "evaluate", unit="image") as progress:
        contract = evaluate_folders(
            images, reference, given, metrics=named, on_image=progress.update
        )
    write_json(out, contract)
    return contract


def _check_maps(folder: Path, kind: str) -> None:
    """Say where maps are nearly black; DistilleryError for a kind that nothing compares."""
    if kind in KINDS and KINDS[kind].group is None:
        raise DistilleryError(
            f"--condition-kind {kind}: nothing compares an image with its {kind}; leave "
            "--conditions out"
        )
    maps = (path.read_bytes() for path in list_images(folder).values())
    if said := dark_line(str(folder), brightest_of_dark(maps)):
        print(said, file=sys.stderr)


def as_text(contract: dict[str, Any]) -> str:
    """A table of value, interval and n, and the reasons for what was skipped."""
    measured, skipped = contract["metrics"], contract["skipped"]
    width = max(len(name) for name in (*measured, *skipped)) + 2
    lines = [f"{'metric':<{width}}{'value':>10}{'95% interval':>23}{'n':>7}"]
    for name, m in measured.items():
        interval = f"{m['ci_low']:.4f} .. {m['ci_high']:.4f}"
        lines.append(f"{name:<{width}}{m['value']:>10.4f} {interval:>22}{m['n']:>7}")
    lines += [f"{name:<{width}}skipped: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)
