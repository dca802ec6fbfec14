"""Stage II of ELR-Diffusion: training a control adapter on a frozen U-Net.

In: a backbone's folder, the teacher's cache, condition maps. Out: one model folder as `seeds`
writes it. The backbone stays as it is. Not here: the adapter's architecture, the loop.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from distillery.core.artifacts import MANIFEST, read_manifest
from distillery.core.errors import DistilleryError
from distillery.core.precision import torch_dtype
from distillery.core.run import Run
from distillery.data.conditions.reader import ConditionMaps
from distillery.diffusion.control import online_residuals
from distillery.diffusion.control_adapter import ControlNets, Distances, TuneControl
from distillery.diffusion.control_drop import Drop, apply_mask, single_conditions
from distillery.diffusion.losses import Weighting
from distillery.families.about import About
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.control_adapter.hints import stack
from distillery.models.export import save_model
from distillery.sampling.sampler import load_unet
from distillery.teacher.cache.conditioned import ConditionedSamples
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import load_controlnet
from distillery.train.control_preview import ControlPreview
from distillery.train.schedule import teacher_diffusion
from distillery.train.seeds import train_seeds
from distillery.train.settings import Settings

TEACHER = "teacher"
NUM_INIT_MAPS = 128
# What must agree between a backbone and the teacher whose latents and captions are cached.
_SHARED_SETTINGS = ("in_channels", "out_channels", "cross_attention_dim")


@dataclass(frozen=True)
class ControlTuning:
    """What is trained, and how; `backbone` is `teacher` or `unet/<variant>`.

    `kronecker` None trains the whole adapter. `lambda_kd` above 0 also distils the teacher's
    ControlNets of all `kinds`.
    """

    backbone: str
    kinds: tuple[str, ...]
    norm: str
    kronecker: Mapping[str, Any] | None
    drop: Drop
    weighting: Weighting
    gamma: float
    lambda_diffusion: float
    lambda_kd: float


def open_backbone(wanted: str, folder: Path, teacher: Path) -> Path:
    """The U-Net's folder in the backbone's; `wanted` is `teacher` or `unet/<variant>`.

    Raises DistilleryError if the folder holds another artefact, or a U-Net of other latents or
    captions than the teacher's.
    """
    stage = "prepare_teacher" if wanted == TEACHER else wanted.replace("unet/", "distill_unet/")
    if (folder / MANIFEST).is_file() and (found := read_manifest(folder)["label"]) != stage:
        raise DistilleryError(
            f"--backbone {folder}: made by {found}, but the variant's backbone is {wanted}; "
            f"give the output of {stage}"
        )
    unet = folder / "unet" if wanted == TEACHER else folder
    if not (unet / "config.json").is_file():
        raise DistilleryError(f"--backbone {folder}: no U-Net for {wanted} here; run {stage}")
    mine, given = (UNet2DConditionModel.load_config(path) for path in (teacher / "unet", unet))
    for name in _SHARED_SETTINGS:
        if mine[name] != given[name]:
            raise DistilleryError(
                f"--backbone {folder}: {name} is {given[name]}, the teacher's {mine[name]}; "
                "give a U-Net distilled from this teacher"
            )
    return unet


def train_adapters(
    tuning: ControlTuning,
    settings: Settings,
    *,
    seeds: Sequence[int],
    base_model: str,
    teacher: Path,
    unet_folder: Path,
    teacher_cache: Path,
    conditions: Path,
    out: Path,
    run: Run,
    device: torch.device,
) -> None:
    """Train an adapter of the U-Net in `unet_folder` for every seed and write them to `out`.

    The seed draws what is not copied from the U-Net. `conditions` holds the maps of all parts. An
    interrupted call goes on from the checkpoints in the run's work folder.
    """
    diffusion = teacher_diffusion(teacher, tuning.weighting, tuning.gamma)
    cache = TeacherCache(teacher_cache, [], len(diffusion.alpha_bar))
    maps = ConditionMaps(conditions, tuning.kinds, cache.meta.resolution_px)
    train, val = (ConditionedSamples(cache.samples(split), maps) for split in ("train", "val"))
    unet = load_unet(unet_folder, device, torch_dtype(settings.precision))
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    objective = TuneControl(
        diffusion, unet, tuning.kinds, cache.empty_text(), tuning.drop,
        _distances(tuning, teacher, unet),
    )  # fmt: skip
    num_slots = cache.meta.num_slots
    kind, shown = tuning.kinds[0], val if len(val) else train
    preview = ControlPreview(teacher, unet, shown, kind, num_slots)

    def draw(adapter: nn.Module) -> Image.Image:
        return preview.draw(_with_one(adapter, tuning.kinds, kind))

    backbone = teacher if tuning.backbone == TEACHER else unet_folder
    builds_on = {"teacher": teacher, "backbone": backbone}
    items = np.arange(0, min(len(train), NUM_INIT_MAPS * num_slots), num_slots)
    maps_seen = stack(tuning.kinds, train.batch(items).conditions)
    train_seeds(
        lambda seed: start_adapter(unet_folder, tuning, maps_seen, seed),
        lambda model: objective,
        settings,
        train=train,
        val=val,
        seeds=seeds,
        out=out,
        run=run,
        device=device,
        described=dataclasses.asdict(tuning),
        card=About("control", base_model, cache, builds_on, tuning.kinds),
        save=save_model,
        draw=draw,
    )


def start_adapter(
    unet_folder: Path, tuning: ControlTuning, maps: Tensor, seed: int
) -> ControlAdapter:
    """An adapter of the U-Net in a folder before its first step, in float32.

    Its extractor is normalised on `maps` [n, 3 num_conditions, H, W], each map alone.
    """
    adapter = ControlAdapter.from_unet(
        load_unet(unet_folder),
        conditions=tuning.kinds,
        norm=tuning.norm,
        kronecker=tuning.kronecker,
        seed=seed,
    )
    adapter.extractor.normalise(apply_mask(maps, single_conditions(len(maps), len(tuning.kinds))))
    return adapter


def _distances(tuning: ControlTuning, teacher: Path, unet: UNet2DConditionModel) -> Distances:
    controlnets = None
    if tuning.lambda_kd:
        nets = {kind: load_controlnet(teacher, kind, unet) for kind in tuning.kinds}
        controlnets = ControlNets({kind: online_residuals(n, kind) for kind, n in nets.items()})
    return Distances(tuning.lambda_diffusion, tuning.lambda_kd, controlnets)


def _with_one(adapter: nn.Module, kinds: Sequence[str], kind: str) -> Callable[..., Any]:
    """The adapter as a ControlNet of one condition."""

    def ask(*args: Any, controlnet_cond: Tensor, **named: Any) -> Any:
        hint = stack(kinds, {kind: controlnet_cond})
        return adapter(*args, controlnet_cond=hint, **named)

    return ask
