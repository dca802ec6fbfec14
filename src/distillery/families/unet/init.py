"""Decomposing the teacher's U-Net: the starting points of Stage I's low-rank variants.

In: the teacher's folder and cache, a rank rule, a method. Out: a folder with the low-rank student
and `layers.json`. `balanced` is the SVD's product in factors of equal size, `data_aware` weighs by
the layers' inputs, `planned` also spreads as many parameters over the layers by what their outputs
need; of these two `layers.json` also gives each layer's output error on cached inputs. `random` is
the ranks alone: its weights are drawn when a training starts. Not here: the mathematics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.artifacts import write_json
from distillery.core.errors import DistilleryError
from distillery.diffusion.conditioning import TEXT
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.models.layers import layer_shapes
from distillery.models.load import load_unet
from distillery.models.lowrank.factorise import factorise_unet, rebalance
from distillery.models.lowrank.moments import collect_second_moments
from distillery.models.lowrank.planner import factorable, spectrum_ranks
from distillery.models.lowrank.ranks import plan_ranks, read_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler
from distillery.train.order import batch_items

LAYERS = "layers.json"
SVD = "svd"
BALANCED = "balanced"
RANDOM = "random"
DATA_AWARE = "data_aware"
PLANNED = "planned"
_VALUE_OF_RULE = {"ratio": "ratio", "fixed": "rank", "energy": "energy", "target_total": "target"}


def choose_ranks(
    unet: UNet2DConditionModel,
    rule: str,
    value: float,
    *,
    keep_dense: Sequence[str],
    other_params: int,
    file: str | None = None,
) -> dict[str, int]:
    """Ranks by layer; `value` is the rule's ratio, rank, share of energy or number of parameters.

    `other_params` are those of text encoder and VAE, which `target_total` and `spectrum` count too.
    The rule `file` takes the ranks that `distillery ranks --out` wrote to `file`.
    """
    if rule == "file":
        return read_ranks(Path(file), unet)
    if rule == "spectrum":
        return spectrum_ranks(unet, target=value, other_params=other_params, keep_dense=keep_dense)
    number = int(value) if rule in ("fixed", "target_total") else value
    return plan_ranks(
        unet,
        rule,
        keep_dense=keep_dense,
        other_params=other_params,
        **{_VALUE_OF_RULE[rule]: number},
    )


def cached_inputs(
    teacher: Path, cache: TeacherCache, *, num_samples: int, batch_size: int, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """U-Net arguments of `num_samples` training items, noisy latents at all noise levels."""
    alpha_bar = alphas_cumprod(load_scheduler(teacher))
    samples = cache.samples("train")
    items = batch_items(0, 0, min(num_samples, len(samples)), len(samples))
    for start in range(0, len(items), batch_size):
        batch = samples.batch(items[start : start + batch_size]).to(device)
        alpha, sigma = alpha_sigma(alpha_bar, batch.timesteps)
        yield {
            "sample": add_noise(batch.latents, batch.noise, alpha, sigma),
            "timestep": batch.timesteps,
            "encoder_hidden_states": batch.conditioning[TEXT],
        }


@dataclass(frozen=True)
class Decomposition:
    """A method and what it needs; `rank` has `rule`, `value`, `file` and `keep_dense`.

    `other_params` are those of text encoder and VAE; `data_aware` and `planned` read
    `num_moment_samples` cached samples, `batch_size` at a time.
    """

    method: str
    rank: Mapping[str, Any]
    other_params: int
    num_moment_samples: int
    batch_size: int


def write_decomposition(
    wanted: Decomposition,
    teacher: Path,
    base: Path | None,
    out: Path,
    device: torch.device,
) -> None:
    """Decompose the teacher's U-Net by one method and write the student to the folder `out`.

    `base` is that view of the teacher's cache. Raises DistilleryError for a method that needs it,
    without one.
    """
    unet = load_unet(teacher, device)
    ranks = choose_ranks(unet, **wanted.rank, other_params=wanted.other_params)
    if wanted.method == RANDOM:
        LowRankUNet2DConditionModel.empty(unet.config, ranks).save_config(out)
        return
    moments = None
    if wanted.method in (DATA_AWARE, PLANNED):
        moments = _moments(unet, wanted, ranks, teacher, base)
    if wanted.method == PLANNED:
        keep_dense = wanted.rank["keep_dense"]
        target = low_rank_size(unet, ranks)
        ranks = spectrum_ranks(unet, target=target, keep_dense=keep_dense, moments=moments)
    init = DATA_AWARE if moments else SVD
    student, layers = factorise_unet(unet, ranks, init, moments=moments)
    student.to("cpu")
    if wanted.method == BALANCED:
        rebalance(student)
    student.save_pretrained(out)
    report = {
        "init": wanted.method,
        "rank": dict(wanted.rank),
        "unet_parameters": {"teacher": _count(unet), "student": _count(student)},
        "layers": layers,
    }
    write_json(out / LAYERS, report)


def _moments(
    unet: UNet2DConditionModel,
    wanted: Decomposition,
    ranks: Mapping[str, int],
    teacher: Path,
    base: Path | None,
) -> dict[str, Tensor]:
    """Second moments of the inputs of all layers that may be decomposed."""
    if base is None:
        raise DistilleryError(f"init_student: {wanted.method} needs --base, the cache's view base")
    cache = TeacherCache(base, {}, len(alphas_cumprod(load_scheduler(teacher))))
    inputs = cached_inputs(
        teacher,
        cache,
        num_samples=wanted.num_moment_samples,
        batch_size=wanted.batch_size,
        device=unet.device,
    )
    names = {*factorable(layer_shapes(unet), wanted.rank["keep_dense"]), *ranks}
    return collect_second_moments(unet, inputs, names=sorted(names))


def low_rank_size(unet: UNet2DConditionModel, ranks: Mapping[str, int]) -> int:
    """Parameters of the low-rank form of `unet` with these ranks."""
    return _count(LowRankUNet2DConditionModel.empty(unet.config, ranks))


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
