"""A LoRA of the teacher on a low-rank student: merged into the student's weights, factorised again.

In: a LoRA file in diffusers' or kohya's names, the teacher that it was trained on, a low-rank
student of that teacher. Out: a student with the LoRA inside. A LoRA changes dense layers, a student
has two factors in their place, so it cannot be loaded: what it adds to each weight is added to the
product of the factors, and the sum truncated to the student's rank, or to a rank with room for all
of it. Nothing is trained. Not here: LoRAs trained on a student, which load as they are.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_unet_state_dict_to_peft, logging
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from distillery.core.errors import DistilleryError, reason_of
from distillery.models.layers import low_rank_layers
from distillery.models.load import load_unet
from distillery.models.lowrank.factorise import factorise_unet, rebalance
from distillery.models.lowrank.removed import layers_kept, removed_in
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

_ADAPTER = "transferred"


@dataclass(frozen=True)
class Transfer:
    """The student with the LoRA, how many layers it changed, and the share of what it adds, in
    squared norm, that the student's rank had no room for."""

    unet: LowRankUNet2DConditionModel
    num_layers: int
    lost: float


def transfer(lora: Path, teacher: Path, student: Path, *, exact: bool = False) -> Transfer:
    """Merge `lora` into the student in the folder `student`; `exact` adds the LoRA's rank to the
    ranks of the layers that it changes, so that nothing is lost.

    What it adds to removed blocks is lost. Raises DistilleryError where the LoRA fits another
    U-Net, or the student is not low-rank.
    """
    unet = load_unet(student)
    if not isinstance(unet, LowRankUNet2DConditionModel):
        raise DistilleryError(f"{student}: a dense U-Net takes LoRAs as they are; load it there")
    added = read_delta(lora, teacher)
    removed, ranks = removed_in(unet.config), dict(unet.config.ranks)
    kept = layers_kept(added, removed)
    if not kept:
        raise DistilleryError(f"{lora}: changes only layers that {student} does not have any more")
    dense = load_unet(teacher)  # where blocks are removed it stays as it is, and they go again
    dense.load_state_dict(unet.merged_state(), strict=not removed)
    weights = dict(dense.named_parameters())
    with torch.no_grad():
        for name, delta in kept.items():
            weights[name] += delta
    if exact:
        ranks = {n: _with_room(n, rank, added) for n, rank in ranks.items()}
    merged = rebalance(factorise_unet(dense, ranks, init="svd", removed=removed)[0])
    return Transfer(merged.eval(), len(kept), _lost(merged, unet, added))


def read_delta(lora: Path, teacher: Path) -> dict[str, Tensor]:
    """{weight: what the LoRA adds to it} on the teacher's U-Net; its part for the text encoder is
    counted on standard error and left out."""
    unet = load_unet(teacher)
    state, alphas, metadata = _read(lora)
    _require_layers(state, unet, lora, teacher)
    if others := sum(not key.startswith("unet.") for key in state):
        print(f"{lora}: {others} tensors are not the U-Net's and left out", file=sys.stderr)
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    try:
        StableDiffusionPipeline.load_lora_into_unet(
            state, alphas, unet, adapter_name=_ADAPTER, metadata=metadata
        )
        unet.fuse_lora()
    except (ValueError, RuntimeError, KeyError) as error:
        reason = reason_of(error)
        raise DistilleryError(f"{lora}: no LoRA of {teacher}'s U-Net ({reason})") from None
    unet.unload_lora()
    after = dict(unet.named_parameters())
    changed = {name: after[name].detach() - old for name, old in before.items()}
    found = {name: delta for name, delta in changed.items() if delta.any()}
    if not found:
        raise DistilleryError(f"{lora}: changes no layer of {teacher}'s U-Net")
    return found


def _require_layers(state: Mapping, unet: nn.Module, lora: Path, teacher: Path) -> None:
    """Refuse a LoRA with layers that are not there, which diffusers would leave out in silence."""
    if not any("lora" in key for key in state):
        raise DistilleryError(f"{lora}: no LoRA here; give its .safetensors")
    own = {k.removeprefix("unet."): v for k, v in state.items() if k.startswith("unet.")}
    if not any(".lora_A." in key for key in own):  # diffusers' older names, which kohya's become
        own = convert_unet_state_dict_to_peft(own)
    layers = {key.split(".lora_")[0] for key in own}
    known = {name for name, _ in unet.named_modules()}
    if lost := sorted(layers - known):
        raise DistilleryError(
            f"{lora}: no LoRA of {teacher}'s U-Net, which lacks {len(lost)} of its {len(layers)} "
            f"layers, first {lost[0]}; one that was trained on a low-rank student loads on that "
            "student as it is"
        )
    _require_whole(own, lora)


def _require_whole(own: Mapping[str, Tensor], lora: Path) -> None:
    """Refuse halves, for which PEFT would leave random numbers or zeros, and damaged numbers."""
    for key, tensor in own.items():
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise DistilleryError(f"{lora}: {key} holds no finite floats; get it again")
    pair = ".lora_A.weight", ".lora_B.weight"
    for layer in sorted({key.split(".lora_")[0] for key in own}):
        ranks = [own[layer + end].shape[n] for n, end in enumerate(pair) if layer + end in own]
        if len(set(ranks)) != 1 or len(ranks) != len(pair):
            given = f"ranks {ranks}" if len(ranks) == len(pair) else f"{len(ranks)} of 2 factors"
            raise DistilleryError(
                f"{lora}: {layer} has {given}, not two factors of one rank; get the LoRA again"
            )


def _require_no_dora(lora: Path) -> None:
    """Refuse kohya's DoRA, whose scales diffusers would leave out with a warning."""
    for file in sorted(lora.glob("*.safetensors")) if lora.is_dir() else [lora]:
        with safe_open(file, "pt") as tensors:
            if num := sum("dora_scale" in key for key in tensors.keys()):  # noqa: SIM118
                raise DistilleryError(
                    f"{lora}: a DoRA, whose {num} dora_scale can't be merged here; train a plain "
                    "LoRA, or save it with diffusers"
                )


def _read(lora: Path) -> tuple[dict, dict | None, dict | None]:
    """The file's tensors in diffusers' names, their alphas, what its header says."""
    logging.set_verbosity_error()  # of keys for other parts, which are counted here
    folder = lora if lora.is_dir() else lora.parent
    name = {} if lora.is_dir() else {"weight_name": lora.name}
    try:
        _require_no_dora(lora)
        return StableDiffusionPipeline.lora_state_dict(
            str(folder), return_lora_metadata=True, local_files_only=True, use_safetensors=True,
            **name,
        )  # fmt: skip
    except (OSError, ValueError, SafetensorError) as error:
        reason = reason_of(error)
        raise DistilleryError(f"{lora}: no LoRA here ({reason}); give its .safetensors") from None


def _with_room(layer: str, rank: int, added: Mapping[str, Tensor]) -> int:
    """The rank, and that of what is added; less where the whole layer has no more."""
    delta = added.get(f"{layer}.weight")
    if delta is None:
        return rank
    flat = delta.flatten(1)
    return min(rank + int(torch.linalg.matrix_rank(flat, rtol=1e-4)), *flat.shape)


@torch.no_grad()
def _lost(
    merged: LowRankUNet2DConditionModel,
    before: LowRankUNet2DConditionModel,
    added: Mapping[str, Tensor],
) -> float:
    """Squared norm of the truncation and of what has no layer, relative to all that was added."""
    old, kept = low_rank_layers(before), layers_kept(added, removed_in(before.config))
    missing = sum(float(added[name].square().sum()) for name in added.keys() - kept.keys())
    for name, layer in low_rank_layers(merged).items():
        if (delta := added.get(f"{name}.weight")) is not None:
            wanted = old[name].merged_weight() + delta
            missing += float((wanted - layer.merged_weight()).square().sum())
    return missing / sum(float(delta.square().sum()) for delta in added.values())
