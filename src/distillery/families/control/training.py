"""Stage II of ELR-Diffusion: training a control adapter on a frozen U-Net.

In: a backbone's folder, the teacher's cache, condition maps. Out: one model folder as `seeds`
writes it. The backbone stays as it is. Not here: the adapter's architecture, the loop.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.precision import torch_dtype
from distillery.diffusion.batch import Batch
from distillery.diffusion.control import online_residuals
from distillery.diffusion.control_adapter import ControlNets, Distances, TuneControl
from distillery.diffusion.control_drop import Drop, apply_mask, single_conditions
from distillery.diffusion.losses import Weighting
from distillery.families.about import About
from distillery.families.backbone import TEACHER, open_backbone
from distillery.models.checkpointing import recompute_activations
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.control_adapter.hints import stack
from distillery.models.load import load_unet
from distillery.teacher.load import load_teacher_controlnet
from distillery.train.preview import Preview
from distillery.train.seeds import Job, Training, train_seeds
from distillery.train.sources import Sources

NUM_INIT_MAPS = 128


@dataclass(frozen=True)
class ControlTuning:
    """What is trained, and how; `backbone` is `teacher` or `unet/<variant>`.

    `encoder` says whose encoder is copied: `backbone` or `teacher`, which is dense.
    `kronecker` None trains the whole adapter. `lambda_kd` above 0 also distils the teacher's
    ControlNets of all `kinds`.
    """

    backbone: str
    encoder: str
    kinds: tuple[str, ...]
    norm: str
    kronecker: Mapping[str, Any] | None
    drop: Drop
    weighting: Weighting
    gamma: float
    lambda_diffusion: float
    lambda_kd: float


def train_adapters(tuning: ControlTuning, sources: Sources, backbone: Path, job: Job) -> None:
    """Train an adapter of the backbone's U-Net for every seed of the job.

    The seed draws what is not copied from the U-Net. `backbone` is the folder that
    `tuning.backbone` names. Reads the view `base` and the condition maps.
    """
    diffusion = sources.diffusion(tuning.weighting, tuning.gamma)
    cache = sources.cache()
    data = sources.data(cache, tuning.kinds)
    folder = open_backbone(tuning.backbone, backbone, sources.teacher)
    copied = sources.teacher / "unet" if tuning.encoder == TEACHER else folder
    unet = load_unet(folder, job.device, torch_dtype(job.settings.precision))
    if job.settings.gradient_checkpointing:
        recompute_activations(unet)
    distances = _distances(tuning, sources.teacher, unet)
    empty = {name: row.to(job.device) for name, row in data.empty.items()}
    objective = TuneControl(diffusion, unet, tuning.kinds, empty, tuning.drop, distances)
    preview = Preview(sources.teacher, data)
    maps = _single_maps(tuning.kinds, data.seen(NUM_INIT_MAPS))
    training = Training(
        lambda seed: start_adapter(copied, tuning, maps, seed),
        lambda model: objective,
        data,
        described=dataclasses.asdict(tuning),
        draw=lambda adapter: preview.draw_controlled(unet, adapter, tuning.kinds),
    )
    builds_on = {"teacher": sources.teacher, "backbone": backbone}
    about = About("control", sources.base_model, cache, builds_on, tuning.kinds)
    train_seeds(training, job, about)


def start_adapter(
    unet_folder: Path, tuning: ControlTuning, maps: Tensor, seed: int
) -> ControlAdapter:
    """An adapter of the U-Net in a folder before its first step, in float32.

    Its extractor is normalised on `maps` [n, 3 num_conditions, H, W], one kind to a sample.
    """
    adapter = ControlAdapter.from_unet(
        load_unet(unet_folder),
        conditions=tuning.kinds,
        norm=tuning.norm,
        kronecker=tuning.kronecker,
        seed=seed,
    )
    adapter.extractor.normalise(maps)
    return adapter


def _single_maps(kinds: tuple[str, ...], batch: Batch) -> Tensor:
    """Of each sample the map of one kind, by turns; without samples that lack theirs."""
    own = single_conditions(len(batch.keys), len(kinds))
    maps = apply_mask(stack(kinds, batch.conditions), own)
    if not batch.has_map:
        return maps
    there = own & torch.stack([batch.has_map[kind] for kind in kinds], 1)
    return maps[there.any(1)] if there.any() else maps


def _distances(tuning: ControlTuning, teacher: Path, unet: UNet2DConditionModel) -> Distances:
    controlnets = None
    if tuning.lambda_kd:
        nets = {kind: load_teacher_controlnet(teacher, kind, unet) for kind in tuning.kinds}
        controlnets = ControlNets({kind: online_residuals(n, kind) for kind, n in nets.items()})
    return Distances(tuning.lambda_diffusion, tuning.lambda_kd, controlnets)
