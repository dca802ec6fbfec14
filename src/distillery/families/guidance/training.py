"""LoRA-enhanced guidance distillation: a variant's starting point, its teacher, its training.

In: the teacher's folder and cache, the U-Net that a variant starts from. Out: one model folder, the
first seed's student at its top and the others in `seed-<n>/`: a U-Net, or a LoRA file; beside it
`student.json` (what to load it on and how to sample), `training.json` and `validation.png`. Not
here: the objective (`guidance`), the LoRA (`models.lora`), the loop.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import nn

from distillery.core.precision import torch_dtype
from distillery.core.run import Run
from distillery.diffusion.guidance import (
    DistillGuided,
    OnlinePair,
    Scales,
    TeacherPair,
    cached_pair,
)
from distillery.diffusion.losses import Weighting
from distillery.diffusion.objectives import Denoise
from distillery.families.about import About
from distillery.families.description import Sampling
from distillery.models.export import save_model
from distillery.models.lora.files import save_lora
from distillery.models.lora.guidance_embedding import add_scale_embedding
from distillery.models.lora.layers import Targets, add_lora
from distillery.sampling.sampler import load_unet
from distillery.teacher.cache.read import TeacherCache
from distillery.train.preview import Preview
from distillery.train.schedule import teacher_diffusion
from distillery.train.seeds import train_seeds
from distillery.train.settings import Settings

VIEWS = ("cond", "uncond")


@dataclass(frozen=True)
class GuidanceDistillation:
    """One variant: what is trained (`update` full or lora), on what (`objective` teacher or noise).

    `backbone` is `teacher` or `unet/<variant>`. `scale_low` and `scale_high` differ for a student
    that is told its scale. `online` asks the teacher (`batched`: in one evaluation of twice the
    batch) instead of its cache; a LoRA on the teacher's own U-Net then shares its weights.
    """

    update: str
    objective: str
    backbone: str
    scale_low: float
    scale_high: float
    rescale: float
    online: bool
    batched: bool
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
    def shares_weights(self) -> bool:
        """Whether student and teacher are one module, told apart by the adapters."""
        return self.online and self.update == "lora" and self.backbone == "teacher"


def backbone_unet(folder: Path) -> Path:
    """Where the U-Net lies in a backbone's folder: a teacher's is in `unet/`."""
    return folder / "unet" if (folder / "unet").is_dir() else folder


def start_student(
    wanted: GuidanceDistillation, backbone: Path, *, dtype: torch.dtype, seed: int
) -> UNet2DConditionModel:
    """A variant before its first step; of `seed` only the LoRA depends, which changes nothing yet.

    `dtype` is that of a LoRA's frozen base; what is trained is float32.
    """
    if wanted.update == "lora":
        unet = load_unet(backbone_unet(backbone), dtype=dtype)
        return add_lora(unet, r=wanted.r, alpha=wanted.alpha, targets=wanted.targets, seed=seed)
    unet = load_unet(backbone_unet(backbone))
    if wanted.is_told_scale:
        unet = add_scale_embedding(unet)
    return unet.requires_grad_(True)


def train_guidance(
    wanted: GuidanceDistillation,
    settings: Settings,
    *,
    seeds: Sequence[int],
    base_model: str,
    teacher: Path,
    backbone: Path,
    teacher_cache: Path,
    out: Path,
    run: Run,
    device: torch.device,
) -> None:
    """Train the variant for every seed, one after the other, and write them to the folder `out`.

    `backbone` is the folder that `wanted.backbone` names; every seed starts from its first U-Net.
    An interrupted call goes on from the checkpoints in the run's work folder.
    """
    diffusion = teacher_diffusion(teacher, wanted.weighting, wanted.gamma)
    learns = wanted.objective == "teacher"
    views = VIEWS if learns and not wanted.online else ()
    cache = TeacherCache(teacher_cache, views, len(diffusion.alpha_bar))
    ask = _teacher_of(wanted, teacher, cache, device) if learns else None

    def guided_by(model: nn.Module) -> DistillGuided:
        return DistillGuided(diffusion, ask(model), wanted.scales, wanted.rescale)

    def save(model: nn.Module, folder: Path) -> None:
        save_lora(model, folder) if wanted.update == "lora" else save_model(model, folder)

    builds_on = {"teacher": teacher, "backbone": backbone}
    dtype = torch_dtype(settings.precision)
    train_seeds(
        lambda seed: start_student(wanted, backbone, dtype=dtype, seed=seed),
        guided_by if learns else lambda model: Denoise(diffusion),
        settings,
        train=cache.samples("train"),
        val=cache.samples("val"),
        seeds=seeds,
        out=out,
        run=run,
        device=device,
        described=dataclasses.asdict(wanted),
        card=About("guidance", base_model, cache, builds_on, sampling=sampling_of(wanted)),
        save=save,
        compare=(lambda model, batch: guided_by(model).outputs(model, batch)) if learns else None,
        draw=_drawing(Preview(teacher, cache), wanted),
    )


def sampling_of(wanted: GuidanceDistillation) -> Sampling:
    """How a student is sampled: once a step where it has learned guidance, else as its teacher."""
    if wanted.objective != "teacher":
        return Sampling()
    low, high = wanted.scale_low, wanted.scale_high
    return Sampling(1, [low, high] if wanted.scales.varies else low, wanted.is_told_scale)


def _teacher_of(
    wanted: GuidanceDistillation, teacher: Path, cache: TeacherCache, device: torch.device
) -> Callable[[nn.Module], TeacherPair]:
    """The teacher of a given student: the cache, the student's own base, or a U-Net beside it."""
    if not wanted.online:
        return lambda student: cached_pair
    empty = cache.empty_text().to(device)
    if wanted.shares_weights:
        return lambda student: OnlinePair(student, empty, wanted.batched, shared=True)
    unet = load_unet(teacher / "unet", device)
    return lambda student: OnlinePair(unet, empty, wanted.batched, shared=False)


def _drawing(preview: Preview, wanted: GuidanceDistillation) -> Callable[[nn.Module], Image.Image]:
    """Pictures as the student is meant to be sampled: without guidance where it has learned it."""
    if wanted.objective == "noise" or wanted.is_told_scale:
        return preview.draw
    return lambda unet: preview.draw(_OneEvaluation(unet))


class _OneEvaluation(nn.Module):
    """A U-Net for the guided call of a pipeline: the conditional output, given for both halves.

    Guidance between equal outputs is none, whatever the scale, and the U-Net is evaluated once.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet, self.config = unet, unet.config

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def forward(self, sample, timestep, encoder_hidden_states, **options):
        cond = self.unet(
            sample.chunk(2)[1], timestep, encoder_hidden_states=encoder_hidden_states.chunk(2)[1],
            **options,
        )[0]  # fmt: skip
        return (torch.cat([cond, cond]),)
