"""How good images are: two folders in, the metrics contract and a table out.

In: folders of images, prompts, condition maps, names of networks. Out: a JSON file, and the same as
text. Not here: the metrics (`metrics.folders`), the evaluation of the pipeline's models
(`stages.evaluate`).
"""

from pathlib import Path
from typing import Any

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.core.progress import bar


def evaluate(
    images: Path,
    reference: Path,
    out: Path,
    *,
    metrics: str | None = None,
    prompts: Path | None = None,
    conditions: Path | None = None,
    condition_kind: str = "canny",
    segmenter: str | None = None,
    extractor: str | None = None,
    lpips: str | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure, write `out` and return what was written; `metrics` are names with commas between.

    Raises DistilleryError as `evaluate_folders` does, before anything is written.
    """
    from distillery.metrics.folders import evaluate_folders

    folders = [images, reference, *([images, conditions] if conditions else [])]
    total = sum(len(list(folder.iterdir())) for folder in folders if folder.is_dir())
    named = [name.strip() for name in metrics.split(",")] if metrics else None
    if named and not all(named):
        raise DistilleryError(f"--metrics {metrics}: an empty name; put one comma between two")
    with bar(total, "evaluate", unit="image") as progress:
        found = evaluate_folders(
            images, reference, metrics=named, prompts=prompts, conditions=conditions,
            condition_kind=condition_kind, segmenter=segmenter, extractor=extractor, lpips=lpips,
            device=device, on_image=progress.update,
        )  # fmt: skip
    write_json(out, found)
    return found


def as_text(found: dict[str, Any]) -> str:
    """A table of value, interval and n, and the reasons for what was skipped."""
    width = max(len(name) for name in (*found["metrics"], *found["skipped"])) + 2
    lines = [f"{'metric':<{width}}{'value':>10}{'95% interval':>22}{'n':>7}"]
    for name, m in found["metrics"].items():
        interval = f"{m['ci_low']:.4f} .. {m['ci_high']:.4f}"
        lines.append(f"{name:<{width}}{m['value']:>10.4f}{interval:>22}{m['n']:>7}")
    lines += [f"{name:<{width}}skipped: {reason}" for name, reason in found["skipped"].items()]
    return "\n".join(lines)
