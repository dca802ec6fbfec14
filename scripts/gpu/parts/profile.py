"""Costs at full size: evaluations in fp16 and training in bf16, each eager and recorded.

Out: files of `distillery profile`, into `profile/`, rewritten after every row of training and every
group of evaluations; the planned U-Net is planned here. What a file has is not measured again, and
a row that fails is named in it under `failed` and does not stop the others.
"""

import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common import Place, keep
from kept import read_kept

from distillery.commands.profile import NATIVE_PX, choose_rows, default_path, profile
from distillery.commands.ranks_device import plan
from distillery.core.errors import DistilleryError
from distillery.cost.full_size.inference import INFERENCE_ROWS
from distillery.cost.full_size.ratios import add_images, ratios
from distillery.cost.profile import device_name

TRAINING = "uni_controlnet,elr,elr_aligned,elr_dense,full_distill,lora_distill,lora_distill_lean"
BATCHES = (1, 8)
CONTROL = "uni_controlnet,elr,elr_dense"
SHARE = "0.75"  # of the dense U-Net's latency; without a teacher's cache no block is removed
FILES = (
    ("sd15", TRAINING, {"dtype": "bf16", "batch_size": 8}),
    ("sd15", "inference", {"dtype": "fp16"}),
    ("sd15", CONTROL, {"dtype": "bf16", "batch_size": 1}),
    ("sd15", "uni_controlnet,elr", {"dtype": "bf16", "batch_size": 8, "checkpointing": True}),
    ("sd21", "inference", {"dtype": "fp16"}),
)
DRY = (("scenes", "inference/unet/dense", {"dtype": "fp32"}),)


def run(place: Place) -> None:
    failed = []
    for preset, rows, options in DRY if place.dry else FILES:
        told = {**options, **_planned(place, preset, rows)}
        failed += File(place, preset, **told).measure(rows)
    if failed:
        raise DistilleryError(f"{', '.join(failed)}: failed, for the reasons above")


def predict(place: Place, number: int) -> None:
    """What a file predicts, for `distillery profile` to find: half a minute of CPU time each."""
    preset, rows, options = FILES[number]
    told = {**options, **_planned(place, preset, rows)}
    profile(preset, rows, device="cpu", batch_sizes=BATCHES, num_repeats=0, **told)


def _planned(place: Place, preset: str, rows: str) -> dict[str, Path]:
    return {"plan": _plan(place, preset)} if rows == "inference" else {}


def _plan(place: Place, preset: str) -> Path:
    """By the roofline of an H100 at batch size 8."""
    path = place.work / f"plan-{preset}.json"
    if not path.is_file():
        keep(path, plan(preset, "h100-fp16-b8", {"--target-share": SHARE}))
    return path


class File:
    """One file of `distillery profile`, as far as it is measured."""

    def __init__(self, place: Place, preset: str, **options: Any) -> None:
        self._place, self._preset, self._options = place, preset, options
        begun = sorted((place.out / "profile").glob(self._named()))
        self._path = begun[-1] if begun else None
        self._known = read_kept(begun[-1]) if begun else {"rows": {}}

    def _named(self) -> str:
        """The file's name, of any day."""
        settings = {
            "preset": self._preset, "resolution_px": NATIVE_PX[self._preset], "batch_size": 1,
            **self._options,
        }  # fmt: skip
        device = device_name(self._place.device)
        return default_path({"date": "*", "device": device, "settings": settings}).name

    def measure(self, rows: str) -> list[str]:
        """What of these rows is not there; each time that a row fails, go on without it.

        Returns those that failed.
        """
        wanted, failed = choose_rows(rows, self._options.get("plan")), {}
        while left := [n for n in wanted if n not in self._known["rows"] and n not in failed]:
            try:
                self._profile(left)
            except Exception as error:
                traceback.print_exc()
                known = self._known["rows"]
                first = [name for name in left if name not in known][:1]
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                failed |= dict.fromkeys(_alike(first, left), why)
        if failed and self._path is not None:
            keep(self._path, {**self._known, "failed": failed})
        return list(failed)

    def _profile(self, rows: Iterable[str]) -> None:
        dry = self._place.dry
        profile(
            self._preset, ",".join(rows), device=self._place.device.type,
            batch_sizes=(1,) if dry else BATCHES, num_repeats=1 if dry else 7,
            runtimes=("eager", "graph"), on_rows=self._keep, **self._options,
        )  # fmt: skip

    def _keep(self, found: Mapping[str, Any]) -> None:
        rows = {**self._known["rows"], **found["rows"]}
        add_images(rows)
        self._known = {**found, "rows": rows, "ratios": ratios(rows)}
        if self._path is None:
            self._path = self._place.out / "profile" / default_path(found).name
        keep(self._path, self._known)


def _alike(first: Iterable[str], rows: Iterable[str]) -> list[str]:
    """With an evaluation all of its group, which are measured together."""
    groups = {INFERENCE_ROWS[name].group for name in first if name in INFERENCE_ROWS}
    alike = [n for n in rows if n in INFERENCE_ROWS and INFERENCE_ROWS[n].group in groups]
    return [*first, *(name for name in alike if name not in first)]
