"""Decomposing the teacher's U-Net: the starting point of Stage I's low-rank variants.

In: the teacher's folder and cache, a rank rule, methods. Out: a folder with the `svd` student and
`layers.json`, and in `data_aware/` and `planned/` the same for data-aware decomposition, with the
rule's ranks and with ranks planned from the layers' outputs, of as many parameters. With either of
them, reports also give each layer's output error on cached inputs. Not here: the mathematics.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from distillery.core.artifacts import write_json
from distillery.diffusion.prediction import add_noise, alpha_sigma
from distillery.models.layers import layer_shapes
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.moments import collect_second_moments
from distillery.models.lowrank.planner import factorable, spectrum_ranks
from distillery.models.lowrank.ranks import plan_ranks, read_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.teacher.cache.read import TeacherCache
from distillery.teacher.load import alphas_cumprod, load_scheduler, load_unet
from distillery.train.order import batch_items

LAYERS = "layers.json"
SVD = "svd"
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
            "encoder_hidden_states": batch.text,
        }


def write_decompositions(
    teacher: Path,
    teacher_cache: Path,
    out: Path,
    *,
    methods: Sequence[str],
    rank: Mapping[str, Any],
    other_params: int,
    num_moment_samples: int,
    batch_size: int,
    device: torch.device,
) -> None:
    """Decompose by every method (`svd` always, as the others' yardstick) and write the students.

    `rank` has `rule`, `value` and `keep_dense`.
    """
    unet = load_unet(teacher, device)
    ranks = {SVD: choose_ranks(unet, **rank, other_params=other_params)}
    moments = None
    if {DATA_AWARE, PLANNED} & set(methods):
        cache = TeacherCache(teacher_cache, [], len(alphas_cumprod(load_scheduler(teacher))))
        inputs = cached_inputs(
            teacher, cache, num_samples=num_moment_samples, batch_size=batch_size, device=device
        )
        names = {*factorable(layer_shapes(unet), rank["keep_dense"]), *ranks[SVD]}
        moments = collect_second_moments(unet, inputs, names=sorted(names))
    for method in dict.fromkeys([SVD, *methods]):
        if method == PLANNED:
            ranks[PLANNED] = spectrum_ranks(
                unet,
                target=low_rank_size(unet, ranks[SVD]),
                keep_dense=rank["keep_dense"],
                moments=moments,
            )
        init = SVD if method == SVD else DATA_AWARE
        student, layers = factorise_unet(unet, ranks.get(method, ranks[SVD]), init, moments=moments)
        folder = out if method == SVD else out / method
        student.to("cpu").save_pretrained(folder)
        report = {
            "init": method,
            "rank": dict(rank),
            "unet_parameters": {"teacher": _count(unet), "student": _count(student)},
            "layers": layers,
        }
        write_json(folder / LAYERS, report)


def low_rank_size(unet: UNet2DConditionModel, ranks: Mapping[str, int]) -> int:
    """Parameters of the low-rank form of `unet` with these ranks."""
    return _count(LowRankUNet2DConditionModel.empty(unet.config, ranks))


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
