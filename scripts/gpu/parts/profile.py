"""Costs at full size: evaluations in fp16 and training in bf16, each eager and recorded.

Out: files of `distillery profile`, into `profile/`; the planned U-Net is planned here.
"""

import json
from pathlib import Path
from typing import Any

from common import Place

from distillery.commands.profile import default_path, profile
from distillery.commands.ranks_device import plan

TRAINING = "uni_controlnet,elr,elr_dense,full_distill,lora_distill,lora_distill_lean"
CONTROL = "uni_controlnet,elr,elr_dense"
SHARE = "0.75"  # of the dense U-Net's latency; without a teacher's cache no block is removed


def run(place: Place) -> None:
    if place.dry:
        _profile(place, "scenes", "inference/unet/dense", dtype="fp32")
        return
    _profile(place, "sd15", "inference", dtype="fp16", plan=_plan(place, "sd15"))
    _profile(place, "sd15", TRAINING, dtype="bf16", batch_size=8)
    _profile(place, "sd15", CONTROL, dtype="bf16", batch_size=1)
    _profile(place, "sd21", "inference", dtype="fp16", plan=_plan(place, "sd21"))


def _plan(place: Place, preset: str) -> Path:
    """By the roofline of an H100 at batch size 8."""
    path = place.work / f"plan-{preset}.json"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        said = plan(preset, "h100-fp16-b8", {"--target-share": SHARE})
        path.write_text(json.dumps(said))
    return path


def _profile(place: Place, preset: str, rows: str, **options: Any) -> None:
    begun = place.work / f"profiled-{preset}-{options['dtype']}-{options.get('batch_size', '')}"
    if begun.is_file():
        return
    found = profile(
        preset, rows, device=place.device.type, batch_sizes=(1,) if place.dry else (1, 8),
        num_repeats=1 if place.dry else 7, runtimes=("eager", "graph"), **options,
    )  # fmt: skip
    path = place.out / "profile" / default_path(found).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
