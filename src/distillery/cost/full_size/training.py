"""The papers' training iterations at full size, as a table of small builders.

In: a pipeline's parts on the meta device. Out: for each row the trained module, what else lies in
memory, and the objective that the training stage itself uses. Nothing has weights here; running
and measuring is `training_run`.

Rows that train from images hold text encoder and VAE, as training scripts do, although latents and
text embeddings are given: the iteration itself is what is timed. Rows from the cache hold neither.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from distillery.cost.accounting import (
    ALIGNED,
    PAPER_KRONECKER,
    low_rank_unet,
    teacher_controlnet,
)
from distillery.cost.full_size.iteration import Iteration
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.control import ControlTeacher, num_residuals, online_residuals
from distillery.diffusion.control_adapter import TuneControl
from distillery.diffusion.control_drop import Drop
from distillery.diffusion.controlnet import DistillControlNet, Factors
from distillery.diffusion.denoise import denoise
from distillery.diffusion.guidance import DistillGuided, OnlinePair, Scales, cached_pair
from distillery.diffusion.layerwise import Layerwise
from distillery.diffusion.objectives import (
    Denoise,
    Diffusion,
    DistillOutput,
    cached_output,
    online_output,
)
from distillery.models.checkpointing import recompute_activations
from distillery.models.control_adapter.adapter import UNI_CONTROLNET_KINDS, ControlAdapter
from distillery.models.control_adapter.encoder import encoder_ranks
from distillery.models.lora.layers import add_lora
from distillery.models.student_controlnet.model import PRESETS, StudentControlNet

Parts = Mapping[str, nn.Module]
GUIDANCE_SCALE = 7.5
LORA = {"r": 16, "alpha": 16.0, "targets": "attention", "seed": 0}
DROP = Drop(each=0.5, keep_all=0.1, drop_all=0.1, caption=0.5)
CANNY = "canny"


@dataclass(frozen=True)
class Row:
    """`paper`: what the source prints of it."""

    title: str
    build: Callable[[Parts], Iteration]
    paper: Mapping[str, float] = field(default_factory=dict)


class InDtype(nn.Module):
    """A U-Net in a narrower dtype behind float32 inputs and outputs."""

    def __init__(self, unet: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.unet, self.dtype = unet, dtype

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor):
        told = {TEXT: encoder_hidden_states}
        output = denoise(self.unet, sample.to(self.dtype), timestep, told)
        return SimpleNamespace(sample=output.float())


def diffusion() -> Diffusion:
    """Stable Diffusion's noise schedule, errors weighted alike."""
    schedule = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    ).alphas_cumprod.float()
    return Diffusion.create(schedule, "epsilon", space="native", kind="constant", gamma=5.0)


def _copy(module: nn.Module, *, trained: bool = False) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(trained).train(trained)


def _companions(parts: Parts) -> dict[str, nn.Module]:
    return {name: _copy(parts[name]) for name in ("text_encoder", "vae")}


def _empty(parts: Parts) -> dict[str, Tensor]:
    """An empty caption's conditioning, on the CPU whatever the parts are on."""
    tokens = parts["text_encoder"].config.max_position_embeddings
    return {TEXT: torch.zeros(1, tokens, parts["unet"].config.cross_attention_dim)}


def _control(*, kronecker: bool, low_rank: int = 0) -> Callable[[Parts], Iteration]:
    """`low_rank`: what the backbone's ranks are multiples of; 0 for the dense one."""

    def build(parts: Parts) -> Iteration:
        unet = parts["unet"]
        unet = low_rank_unet(unet, low_rank) if low_rank else _copy(unet)
        adapter = ControlAdapter.empty(
            unet.config,
            ranks=encoder_ranks(unet.config.get("ranks")),
            conditions=UNI_CONTROLNET_KINDS,
            kronecker=PAPER_KRONECKER if kronecker else None,
        )
        objective = TuneControl(
            diffusion(), unet.requires_grad_(False), UNI_CONTROLNET_KINDS, _empty(parts), DROP
        )
        frozen = {"unet": unet, **_companions(parts)}
        return Iteration(adapter.train(), objective, frozen, role="adapter")

    return build


def _full_finetune(parts: Parts) -> Iteration:
    return Iteration(_copy(parts["unet"], trained=True), Denoise(diffusion()), _companions(parts))


def _full_distill(parts: Parts) -> Iteration:
    teacher = _copy(parts["unet"])
    pair = OnlinePair(teacher, _empty(parts), batched=False, shared=False)
    objective = DistillGuided(diffusion(), pair, Scales(GUIDANCE_SCALE, GUIDANCE_SCALE))
    student = _copy(parts["unet"], trained=True)
    return Iteration(student, objective, _companions(parts), {"teacher": teacher})


def _with_lora(unet: nn.Module) -> nn.Module:
    with torch.device("meta"):
        return add_lora(unet, **LORA).train()


def _lora_finetune(parts: Parts) -> Iteration:
    unet = _with_lora(_copy(parts["unet"]))
    return Iteration(unet, Denoise(diffusion()), _companions(parts))


def _lora_distill(parts: Parts) -> Iteration:
    unet = _with_lora(_copy(parts["unet"]))
    pair = OnlinePair(unet, _empty(parts), batched=False, shared=True)
    objective = DistillGuided(diffusion(), pair, Scales(GUIDANCE_SCALE, GUIDANCE_SCALE))
    return Iteration(unet, objective, _companions(parts))


def _lora_distill_lean(parts: Parts) -> Iteration:
    unet = _with_lora(nn.Module.to(_copy(parts["unet"]), torch.bfloat16))
    recompute_activations(unet)
    scales = Scales(GUIDANCE_SCALE, GUIDANCE_SCALE)
    objective = DistillGuided(diffusion(), cached_pair, scales)
    return Iteration(InDtype(unet, torch.bfloat16).train(), objective)


def _controlnet(preset: str | None, *, distilled: bool) -> Callable[[Parts], Iteration]:
    """A ControlNet by the diffusion loss alone, or a student by all three distances."""

    def build(parts: Parts) -> Iteration:
        unet, teacher = _copy(parts["unet"]), _copy(teacher_controlnet(parts))
        if preset is None:
            student = _copy(teacher, trained=True)
        else:
            student = StudentControlNet.empty(teacher, PRESETS[preset]).train()
        residuals = online_residuals(teacher, CANNY) if distilled else None
        objective = DistillControlNet(
            CANNY,
            diffusion(),
            ControlTeacher(unet, residuals, None),
            Factors(1.0, float(distilled), float(distilled)),
            Layerwise(student, num_residuals(unet), "teacher", "sample") if distilled else None,
        )
        frozen = {"unet": unet, **_companions(parts)}
        teachers = {"teacher": teacher} if distilled else {}
        return Iteration(student, objective, frozen, teachers, role="controlnet")

    return build


def _stage_one_online(parts: Parts) -> Iteration:
    teacher = _copy(parts["unet"])
    objective = DistillOutput(diffusion(), online_output(teacher))
    student = _copy(parts["unet"], trained=True)
    return Iteration(student, objective, _companions(parts), {"teacher": teacher})


def _stage_one_cached(parts: Parts) -> Iteration:
    student = low_rank_unet(parts["unet"]).train()
    return Iteration(student, DistillOutput(diffusion(), cached_output("cond")))


def _students() -> dict[str, Row]:
    names = [name for name in PRESETS if name != "original"]
    return {
        f"controlnet_{name}": Row(
            f"ControlNet student {name}, teacher online", _controlnet(name, distilled=True)
        )
        for name in names
    }


ROWS = {
    "uni_controlnet": Row(
        "Uni-ControlNet, dense backbone", _control(kronecker=False),
        {"memory_gb": 20.0, "seconds_per_iteration": 5.72},
    ),
    "elr": Row(
        "ELR, low-rank backbone, Kronecker", _control(kronecker=True, low_rank=1),
        {"memory_gb": 11.0},
    ),
    "elr_aligned": Row(
        f"ELR, ranks in multiples of {ALIGNED}, Kronecker",
        _control(kronecker=True, low_rank=ALIGNED),
    ),
    "elr_dense": Row(
        "ELR, dense backbone, Kronecker", _control(kronecker=True),
        {"memory_gb": 14.0, "seconds_per_iteration": 2.15},
    ),
    "full_finetune": Row("Fine-tuning the U-Net", _full_finetune, {"memory_gb": 21.0}),
    "full_distill": Row("+ guidance distillation", _full_distill, {"memory_gb": 24.4}),
    "lora_finetune": Row("+ LoRA", _lora_finetune, {"memory_gb": 9.6}),
    "lora_distill": Row("+ both, one W0", _lora_distill, {"memory_gb": 10.3}),
    "lora_distill_lean": Row(
        "+ cached teacher, bf16 base, checkpointing", _lora_distill_lean
    ),
    "controlnet_teacher": Row(
        "ControlNet as it is, diffusion loss", _controlnet(None, distilled=False)
    ),
    **_students(),
    "unet_dense_online": Row("Stage I, dense student, teacher online", _stage_one_online),
    "unet_low_rank_cached": Row(
        "Stage I, low-rank student, cached teacher", _stage_one_cached
    ),
}  # fmt: skip
