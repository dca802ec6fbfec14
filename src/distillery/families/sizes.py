"""Parameters and multiply-accumulates of the students that a params file describes.

In: the params, the teacher's parts on the meta device. Out: one entry per variant, before anything
is trained. Rank rules that look at weights need the teacher's folder; without it their students
are named, with the reason, and not counted.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.cost.accounting import (
    CONTROLNET,
    WITH_ADAPTER,
    Entry,
    entry_of,
    teacher_controlnet,
)
from distillery.cost.counts import count_macs
from distillery.families.unet.init import choose_ranks
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.control_adapter.encoder import encoder_ranks
from distillery.models.control_adapter.hints import VAE_SCALE
from distillery.models.lora.layers import add_lora
from distillery.models.lowrank.removed import removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet
from distillery.teacher.load import load_unet

_WEIGHT_RULES = ("energy", "spectrum")
UNET = "U-Net alone"


@dataclass(frozen=True)
class Student:
    """An entry and the MACs of one evaluation at batch size 1; `macs` counts what is deployed."""

    entry: Entry
    macs: int


def student_entries(
    params: Any, parts: Mapping[str, nn.Module], teacher: Path | None
) -> list[Student]:
    """Every variant of the four training stages. `teacher`: its folder, where it is at hand."""
    ranks = unet_ranks(params, parts, teacher)
    unets = {name: _unet(parts, v, ranks) for name, v in params.distill_unet.variants.items()}
    found = [_counted(f"unet/{name}", UNET, {"unet": unet}, parts) for name, unet in unets.items()]
    found += _controls(params, parts, unets)
    found += _controlnets(params, parts)
    return [*found, *_guidances(params, parts, unets)]


def unet_ranks(params: Any, parts: Mapping[str, nn.Module], teacher: Path | None) -> dict[str, int]:
    """The ranks that `init_student` would choose."""
    rank, unet = params.init_student.rank, parts["unet"]
    if rank.rule in _WEIGHT_RULES:
        if teacher is None:
            raise DistilleryError(
                f"init_student.rank.rule: {rank.rule} looks at the teacher's weights; "
                "give --teacher FOLDER"
            )
        unet = load_unet(teacher)
    others = (parts[name] for name in ("text_encoder", "vae"))
    num_others = sum(p.numel() for part in others for p in part.parameters())
    return choose_ranks(unet, **rank.model_dump(), other_params=num_others)


def _unet(parts: Mapping[str, nn.Module], variant: Any, ranks: Mapping[str, int]) -> nn.Module:
    wanted = ranks if variant.architecture == "low_rank" else {}
    return LowRankUNet2DConditionModel.empty(parts["unet"].config, wanted)


def _backbone(name: str, parts: Mapping[str, nn.Module], unets: Mapping) -> nn.Module:
    """A fresh meta copy of a variant's backbone."""
    unet = parts["unet"] if name == "teacher" else unets[name.partition("/")[2]]
    ranks = unet.config.get("ranks") or {}
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks, removed_in(unet.config))
    return student.requires_grad_(False)


def _controls(params: Any, parts: Mapping[str, nn.Module], unets: Mapping) -> Iterator[Student]:
    section = params.finetune_control
    for name, variant in section.variants.items():
        unet = _backbone(variant.backbone, parts, unets)
        adapter = ControlAdapter.empty(
            unet.config,
            ranks=encoder_ranks(unet.config.get("ranks")),
            conditions=section.conditions,
            norm=section.norm,
            kronecker=section.kronecker.model_dump() if variant.update == "kronecker" else None,
        )
        yield _counted(f"control/{name}", WITH_ADAPTER, {"unet": unet, "adapter": adapter}, parts)


def _controlnets(params: Any, parts: Mapping[str, nn.Module]) -> Iterator[Student]:
    for name, variant in params.distill_controlnet.variants.items():
        chosen = variant.student
        settings = PRESETS[chosen] if isinstance(chosen, str) else chosen.model_dump()
        student = StudentControlNet.empty(teacher_controlnet(parts), settings)
        yield _counted(f"controlnet/{name}", CONTROLNET, {"controlnet": student}, parts)


def _guidances(params: Any, parts: Mapping[str, nn.Module], unets: Mapping) -> Iterator[Student]:
    lora = params.distill_guidance.lora
    for name, variant in params.distill_guidance.variants.items():
        unet = _backbone(variant.backbone, parts, unets).requires_grad_(True)
        macs = evaluation_macs({"unet": unet}, parts)
        if variant.update == "lora":  # fused for use, so it costs nothing then
            with torch.device("meta"):
                add_lora(unet, r=lora.r, alpha=lora.alpha, targets=lora.targets, seed=0)
        entry = entry_of(f"guidance/{name}", "params", UNET, {"unet": unet})
        yield Student(entry, macs)


def _counted(
    name: str, scope: str, counted: Mapping[str, nn.Module], parts: Mapping[str, nn.Module]
) -> Student:
    return Student(entry_of(name, "params", scope, counted), evaluation_macs(counted, parts))


def evaluation_macs(counted: Mapping[str, nn.Module], parts: Mapping[str, nn.Module]) -> int:
    """MACs of one call of each counted module, for one image of the pipeline's own size.

    The modules are as their configs describe them: students of one architecture are counted once.
    """
    side = parts["unet"].config.sample_size
    tokens = parts["text_encoder"].config.max_position_embeddings
    return sum(
        _macs(type(module), json.dumps(dict(module.config), sort_keys=True), side, tokens)
        for module in counted.values()
    )


@cache
def _macs(kind: type[ModelMixin], config: str, side: int, num_tokens: int) -> int:
    with torch.device("meta"):
        module = kind.from_config(json.loads(config))
    return count_macs(module, **meta_inputs(module, side, num_tokens))


def meta_inputs(module: nn.Module, side: int, num_tokens: int) -> dict[str, torch.Tensor]:
    """Arguments of a U-Net, ControlNet or adapter on meta: one latent of `side` x `side`."""
    config = module.config
    found = {
        "sample": torch.empty(1, config.in_channels, side, side, device="meta"),
        "timestep": torch.ones(1, device="meta"),
        "encoder_hidden_states": torch.empty(
            1, num_tokens, config.cross_attention_dim, device="meta"
        ),
    }
    if "conditioning_channels" in config:
        shape = (1, config.conditioning_channels, VAE_SCALE * side, VAE_SCALE * side)
        found["controlnet_cond"] = torch.empty(shape, device="meta")
    return found
