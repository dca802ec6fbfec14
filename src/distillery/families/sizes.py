"""Parameters and multiply-accumulates of the students that plain settings describe.

In: each training stage's section as plain values, the teacher's parts on the meta device, the ranks
of its low-rank form. Out: one entry per variant, before anything is trained. How a variant is built
each family says (`Family.sizes`). Not here: params, the choice of ranks but for its arguments.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.cost.accounting import Entry, entry_of
from distillery.cost.counts import count_macs
from distillery.families import TRAINED
from distillery.families.unet.init import METHODS, choose_ranks
from distillery.models.control_adapter.hints import VAE_SCALE
from distillery.models.load import load_unet
from distillery.models.lowrank.ranks import read_removed
from distillery.models.lowrank.removed import removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.skeleton import on_meta

_WEIGHT_RULES = ("energy", "spectrum")


@dataclass(frozen=True)
class Sized:
    """An entry and the MACs of one evaluation at batch size 1; `macs` counts what is deployed."""

    entry: Entry
    macs: int


@dataclass(frozen=True)
class Known:
    """The teacher's parts, its low-rank form's ranks and removed blocks, its U-Net students.

    A student U-Net is low-rank or has the teacher's shape, as its `architecture` says; one whose
    `init` is a plan is as that plan in the folder `init`.
    """

    parts: Mapping[str, nn.Module]
    ranks: Mapping[str, int]
    unets: Mapping[str, Mapping[str, Any]]
    removed: tuple[str, ...] = ()
    init: Path = Path("models/init")

    def backbone(self, name: str) -> LowRankUNet2DConditionModel:
        """A fresh frozen meta copy of `teacher` or `unet/<variant>`.

        Raises UnplannedError for one whose plan `init_student` has not made yet.
        """
        variant = self.unets.get(name.partition("/")[2], {"architecture": "dense"})
        low_rank = variant["architecture"] == "low_rank"
        choice = (self.ranks, self.removed) if low_rank else ({}, ())
        if low_rank and variant["init"] not in METHODS:
            choice = _planned(self.init / variant["init"])
        unet = LowRankUNet2DConditionModel.empty(self.parts["unet"].config, *choice)
        return unet.requires_grad_(False)

    def sized(self, name: str, scope: str, counted: Mapping[str, nn.Module]) -> Sized:
        """The entry of a student whose modules `counted` are what is evaluated."""
        return Sized(entry_of(name, "params", scope, counted), self.macs(counted))

    def macs(self, counted: Mapping[str, nn.Module]) -> int:
        """MACs of one call of each counted module, for one image of the pipeline's own size.

        The modules are as their configs describe them: equal architectures are counted once.
        """
        side = self.parts["unet"].config.sample_size
        tokens = self.parts["text_encoder"].config.max_position_embeddings
        return sum(
            _macs(type(module), json.dumps(dict(module.config), sort_keys=True), side, tokens)
            for module in counted.values()
        )


def student_sizes(
    sections: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, nn.Module],
    ranks: Mapping[str, int],
    removed: tuple[str, ...] = (),
    init: Path = Path("models/init"),
) -> list[Sized]:
    """Every variant of the training stages; `sections` by stage, `ranks` as `student_ranks`.

    Those that stand on a plan which is not in `init` yet are left out.
    """
    known = Known(parts, ranks, sections[TRAINED["unet"].stage]["variants"], removed, init)
    sized = []
    for family in TRAINED.values():
        for name, variant in sections[family.stage]["variants"].items():
            with contextlib.suppress(UnplannedError):
                sized.append(family.sizes(name, variant, sections[family.stage], known))
    return sized


class UnplannedError(DistilleryError):
    """A student that is not known before `init_student` has planned it on the teacher's cache."""


def _planned(folder: Path) -> tuple[Mapping[str, int], tuple[str, ...]]:
    if not (folder / "config.json").is_file():
        raise UnplannedError(f"{folder}: no plan yet; run init_student first")
    config = LowRankUNet2DConditionModel.load_config(folder)
    return config["ranks"], removed_in(config)


def student_choice(
    rule: Mapping[str, Any], parts: Mapping[str, nn.Module], teacher: Path | None, init: Path
) -> tuple[Mapping[str, int], tuple[str, ...]]:
    """Ranks and removed blocks that `init_student` would choose, or by latency has: from `init`.

    Raises DistilleryError for the rule `latency` before `init_student` has run.
    """
    if rule["rule"] == "file":
        return student_ranks(rule, parts, teacher), read_removed(Path(rule["file"]), parts["unet"])
    if rule["rule"] != "latency":
        return student_ranks(rule, parts, teacher), ()
    made = next(iter(sorted(init.glob("*/config.json"))), None)
    if made is None:
        raise DistilleryError(
            f"init_student.rank.rule: latency plans on the teacher's cache, and {init} holds no "
            "plan; run init_student first, or plan with `distillery ranks --out` and rule file"
        )
    return _planned(made.parent)


def student_ranks(
    rule: Mapping[str, Any], parts: Mapping[str, nn.Module], teacher: Path | None
) -> dict[str, int]:
    """The ranks that `init_student` would choose by its settings `rule`.

    `teacher`: its folder, where it is at hand. Raises DistilleryError for a rule that looks at
    weights without it.
    """
    unet = parts["unet"]
    if rule["rule"] in _WEIGHT_RULES:
        if teacher is None:
            raise DistilleryError(
                f"init_student.rank.rule: {rule['rule']} looks at the teacher's weights; "
                "give --teacher FOLDER"
            )
        unet = load_unet(teacher)
    others = (parts[name] for name in ("text_encoder", "vae"))
    num_others = sum(p.numel() for part in others for p in part.parameters())
    return choose_ranks(unet, rule, other_params=num_others)


@cache
def _macs(kind: type[ModelMixin], config: str, side: int, num_tokens: int) -> int:
    with on_meta():
        module = kind.from_config(json.loads(config))
    return count_macs(module, **meta_inputs(module, side, num_tokens))


def meta_inputs(module: nn.Module, side: int, num_tokens: int) -> dict[str, torch.Tensor]:
    """Arguments of a U-Net, ControlNet or adapter on meta: one latent of `side` x `side`."""
    config = module.config
    inputs = {
        "sample": torch.empty(1, config.in_channels, side, side, device="meta"),
        "timestep": torch.ones(1, device="meta"),
        "encoder_hidden_states": torch.empty(
            1, num_tokens, config.cross_attention_dim, device="meta"
        ),
    }
    if "conditioning_channels" in config:
        shape = (1, config.conditioning_channels, VAE_SCALE * side, VAE_SCALE * side)
        inputs["controlnet_cond"] = torch.empty(shape, device="meta")
    return inputs
