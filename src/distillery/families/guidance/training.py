"""LoRA-enhanced guidance distillation: a variant's starting point, its teacher, its training.

In: the teacher's folder and cache, the U-Net that a variant starts from. Out: one model folder, the
first seed's student at its top and the others in `seed-<n>/`: a U-Net, or a LoRA file; beside it
`student.json` (what to load it on and how to sample), `training.json` and `validation.png`. Not
here: the objective (`guidance`), the LoRA (`models.lora`), the loop.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from distillery.core.precision import torch_dtype
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.guidance import (
    DistillGuided,
    Negatives,
    OnlinePair,
    Scales,
    TeacherPair,
    cached_pair,
)
from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import Denoise
from distillery.families.about import About
from distillery.families.backbone import open_backbone
from distillery.families.description import Sampling
from distillery.models.export import save_model
from distillery.models.load import load_unet
from distillery.models.lora.files import save_lora
from distillery.models.lora.guidance_embedding import add_scale_embedding
from distillery.models.lora.layers import Targets, add_lora
from distillery.models.lora.negative import add_negative, save_negative, without_negative
from distillery.train.preview import Preview
from distillery.train.seeds import Job, Training, train_seeds
from distillery.train.sources import Sources, TrainingData

VIEWS = ("cond", "uncond")
NUM_NEGATIVES = 256  # captions that negative prompts are drawn from; 60 MB of SD's embeddings


@dataclass(frozen=True)
class GuidanceDistillation:
    """One variant: what is trained (`update` full or lora), on what (`objective` teacher or noise).

    `backbone` is `teacher` or `unet/<variant>`. `scale_low` and `scale_high` differ for a student
    that is told its scale. `online` asks the teacher (`batched`: in one evaluation of twice the
    batch) instead of its cache; a LoRA on the teacher's own U-Net then shares its weights.
    `negative` also teaches negative prompts, for which the teacher is asked in any case.
    """

    update: str
    objective: str
    backbone: str
    scale_low: float
    scale_high: float
    rescale: float
    online: bool
    batched: bool
    negative: bool
    r: int
    alpha: float
    targets: Targets
    weighting: Weighting
    gamma: float

    @property
    def scales(self) -> Scales:
        return Scales(self.scale_low, self.scale_high)

    @property
    def is_told_scale(self) -> bool:
        """Whether the student needs the w-embedding."""
        return self.objective == "teacher" and self.scales.varies

    @property
    def is_told_negative(self) -> bool:
        """Whether the student is told negative prompts."""
        return self.objective == "teacher" and self.negative

    @property
    def shares_weights(self) -> bool:
        """Whether student and teacher are one module, told apart by the adapters."""
        is_asked = self.online or self.negative
        return is_asked and self.update == "lora" and self.backbone == "teacher"


def start_student(
    wanted: GuidanceDistillation, backbone: Path, *, dtype: torch.dtype, seed: int
) -> UNet2DConditionModel:
    """A variant before its first step; of `seed` only the LoRA depends, which changes nothing yet.

    `dtype` is that of a LoRA's frozen base; what is trained is float32.
    """
    if wanted.update == "lora":
        unet = load_unet(backbone, dtype=dtype)
        add_lora(unet, r=wanted.r, alpha=wanted.alpha, targets=wanted.targets, seed=seed)
    else:
        unet = load_unet(backbone)
        unet = (add_scale_embedding(unet) if wanted.is_told_scale else unet).requires_grad_(True)
    return add_negative(unet) if wanted.is_told_negative else unet


def train_guidance(
    wanted: GuidanceDistillation, sources: Sources, backbone: Path, job: Job
) -> None:
    """Train the variant for every seed of the job; reads the views `base`, `cond` and `uncond`.

    `backbone` is the folder that `wanted.backbone` names; every seed starts from its first U-Net.
    """
    diffusion = sources.diffusion(wanted.weighting, wanted.gamma)
    unet = open_backbone(wanted.backbone, backbone, sources.teacher)
    learns = wanted.objective == "teacher"
    cache = sources.cache(*(VIEWS if learns and not wanted.online else ()))
    data = sources.data(cache)
    ask = _teacher_of(wanted, sources.teacher, data, job.device) if learns else None

    def guided_by(model: nn.Module) -> DistillGuided:
        pair, negatives = ask(model)
        return DistillGuided(diffusion, pair, wanted.scales, wanted.rescale, negatives)

    dtype, preview = torch_dtype(job.settings.precision), Preview(sources.teacher, data)
    is_guided = wanted.objective == "noise" or wanted.is_told_scale
    training = Training(
        lambda seed: start_student(wanted, unet, dtype=dtype, seed=seed),
        guided_by if learns else lambda model: Denoise(diffusion),
        data,
        described=dataclasses.asdict(wanted),
        compare=(lambda model, batch: guided_by(model).outputs(model, batch)) if learns else None,
        draw=preview.draw if is_guided else preview.draw_unguided,
        save=functools.partial(_save, wanted),
    )
    builds_on = {"teacher": sources.teacher, "backbone": backbone}
    about = About("guidance", sources.base_model, cache, builds_on, sampling=sampling_of(wanted))
    train_seeds(training, job, about)


def sampling_of(wanted: GuidanceDistillation) -> Sampling:
    """How a student is sampled: once a step where it has learned guidance, else as its teacher."""
    if wanted.objective != "teacher":
        return Sampling()
    low, high = wanted.scale_low, wanted.scale_high
    scale = [low, high] if wanted.scales.varies else low
    return Sampling(1, scale, wanted.is_told_scale, wanted.is_told_negative)


def _save(wanted: GuidanceDistillation, model: nn.Module, folder: Path) -> None:
    with without_negative(model):
        save_lora(model, folder) if wanted.update == "lora" else save_model(model, folder)
    if wanted.is_told_negative:
        save_negative(model, folder)


def _teacher_of(
    wanted: GuidanceDistillation, teacher: Path, data: TrainingData, device: torch.device
) -> Callable[[nn.Module], tuple[TeacherPair, Negatives | None]]:
    """The teacher of a given student: the cache, the student's own base, or a U-Net beside it.

    Beside it, where they are taught, negative prompts: the captions of `NUM_NEGATIVES` records.
    """
    empty = {name: row.to(device) for name, row in data.empty.items()}
    is_beside = (wanted.online or wanted.negative) and not wanted.shares_weights
    beside = load_unet(teacher, device) if is_beside else None
    bank = data.seen(NUM_NEGATIVES).conditioning[TEXT].to(device) if wanted.negative else None

    def teach(student: nn.Module) -> tuple[TeacherPair, Negatives | None]:
        shared = beside is None
        pair: TeacherPair = cached_pair
        asked = OnlinePair(student if shared else beside, empty, wanted.batched, shared=shared)
        if wanted.online:
            pair = asked
        negatives = None if bank is None else Negatives(bank, empty[TEXT], asked.answer)
        return pair, negatives

    return teach
