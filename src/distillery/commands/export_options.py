"""What may be asked of `distillery export`: a form, and options of some of them.

In: words of a command line. Out: `Options`, or an error before anything heavy is imported. Not
here: which forms a model has (`export_forms`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distillery.core.errors import DistilleryError

FORMS = ("diffusers", "single-file", "kohya", "hub", "comfyui-node", "student")


@dataclass(frozen=True)
class Options:
    """What the forms need beside the model; each is used by some of them."""

    fp16: bool = False
    license: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    metrics: Path | None = None


def require_fitting(to: str, options: Options) -> None:
    """Refuse an unknown form, and options that this one takes no notice of."""
    if to not in FORMS:
        raise DistilleryError(f"--to {to}: unknown; use one of {', '.join(FORMS)}")
    for option, (given, takers) in {
        "--fp16": (options.fp16, ("single-file",)),
        "--base-model": (options.base_model, ("hub", "kohya")),
        "--license": (options.license, ("hub",)),
        "--dataset": (options.datasets, ("hub",)),
        "--metrics": (options.metrics, ("hub",)),
    }.items():
        if given and to not in takers:
            raise DistilleryError(f"{option} goes with --to {' or '.join(takers)}, not {to}")
