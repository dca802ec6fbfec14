"""The profile of a teacher and its students: what is counted and what is measured.

In: a teacher folder, a folder of student families. Out: the dict of `metrics/profile.json`, the
metrics contract with names `<model>/<quantity>`, e.g. `unet/elr/latency_s`; `sd21/dense` and
`sd21/low_rank` are Stable Diffusion 2.1 as the paper counts it, on the meta device. The only
artefact with measured times in it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from distillery.artifacts import content_of
from distillery.metrics import cost
from distillery.metrics.intervals import exact, metrics_file
from distillery.models.architectures import build_meta
from distillery.models.counts import count_macs, count_parameters
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.ranks import plan_ranks
from distillery.sampling import load_unet
from distillery.teacher.load import load_module

PAPER_ARCHITECTURE = "sd21"
PAPER_RATIO = 1 / 3
COLUMNS = ("total", "unet", "adapter", "requires_grad", "in_optimiser")


def find_models(teacher: Path, models: Path) -> dict[str, Path]:
    """{"teacher": its U-Net folder, "unet/<variant>": folder, ...}."""
    variants = sorted(p.parent for p in models.glob("unet/*/config.json"))
    return {"teacher": teacher / "unet", **{f"unet/{p.name}": p for p in variants}}


def profile_models(
    teacher: Path,
    models: Path,
    device: torch.device,
    *,
    batch_size: int,
    num_repeats: int,
    on_repeat: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """Count and time the teacher and all students at their own size."""
    folders = find_models(teacher, models)
    unets = {name: load_unet(folder, device) for name, folder in folders.items()}
    shared = {
        "text_encoder": load_module(CLIPTextModel, teacher, "text_encoder", "cpu", torch.float32),
        "vae": load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32),
    }
    found: dict[str, Any] = {}
    for name, unet in unets.items():
        unet.requires_grad_(name != "teacher")
        found |= _named(name, _counts(unet, shared, trained=name != "teacher"))
    tokens = num_tokens(shared["text_encoder"])
    found |= _measured(unets, batch_size, tokens, num_repeats, on_repeat)
    if device.type != "cuda":
        found |= _predicted_memory(unets)
    found |= _paper_counts()
    fingerprints = {"teacher": content_of(teacher)} | {
        name: content_of(folder) for name, folder in folders.items() if name != "teacher"
    }
    return {**metrics_file({0: found}, {}, fingerprints), "device": device_name(device)}


def device_name(device: torch.device) -> str:
    """The CUDA device's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def num_tokens(text_encoder: CLIPTextModel) -> int:
    """How many text tokens the U-Net attends to."""
    return text_encoder.config.max_position_embeddings


def num_rounds(teacher: Path, models: Path, num_repeats: int) -> int:
    """How often `on_repeat` will be called."""
    return 2 * len(find_models(teacher, models)) * (num_repeats + 1)


def _counts(
    unet: UNet2DConditionModel, shared: Mapping[str, nn.Module], *, trained: bool
) -> dict[str, Any]:
    optimised = list(unet.parameters()) if trained else None
    counts = count_parameters({"unet": unet, **shared}, optimised)
    settings = {"basis": "counted"}
    found = {f"parameters_{column}": (exact(counts[column]), settings) for column in COLUMNS}
    found["bytes_on_disk"] = (exact(counts["bytes_on_disk"]), {**settings, "dtype": "float32"})
    workload = cost.Workload.of(unet, 1, num_tokens(shared["text_encoder"]))
    macs = count_macs(unet, **vars(workload))
    return {**found, "macs": (exact(macs), {**settings, "per": "U-Net evaluation, batch size 1"})}


def _measured(
    unets: Mapping[str, UNet2DConditionModel],
    batch_size: int,
    tokens: int,
    num_repeats: int,
    on_repeat: Callable[[int], object],
) -> dict[str, Any]:
    latency = {f"{n}/latency_s": cost.latency_job(u, batch_size, tokens) for n, u in unets.items()}
    found = cost.time_in_turn(latency, num_repeats, batch_size, on_repeat)
    for unet in unets.values():
        unet.requires_grad_(True)
    steps = {
        f"{n}/train_step_s": cost.training_job(u, batch_size, tokens) for n, u in unets.items()
    }
    found |= cost.time_in_turn(steps, num_repeats, batch_size, on_repeat)
    for kind, jobs in (("memory_bytes", latency), ("train_memory_bytes", steps)):
        for name, job in jobs.items():
            if (peak := cost.peak_memory_bytes(job)) is not None:
                settings = {"basis": "measured", "batch_size": batch_size, "kind": "peak allocated"}
                found[f"{name.rpartition('/')[0]}/{kind}"] = (exact(peak), settings)
    return {name: (e, {"basis": "measured", **settings}) for name, (e, settings) in found.items()}


def _predicted_memory(unets: Mapping[str, UNet2DConditionModel]) -> dict[str, Any]:
    """Device memory that the parameters alone need, where none can be measured.

    Evaluation: float32 weights. Training: weights, gradients and AdamW's two moments.
    """
    settings = {"basis": "predicted", "note": cost.NO_MEMORY}
    found: dict[str, Any] = {}
    for name, unet in unets.items():
        size = 4 * sum(parameter.numel() for parameter in unet.parameters())
        kind = {**settings, "kind": "float32 weights, without activations"}
        found[f"{name}/memory_bytes"] = (exact(size), kind)
        kind = {**settings, "kind": "weights, gradients and Adam moments, without activations"}
        found[f"{name}/train_memory_bytes"] = (exact(4 * size), kind)
    return found


def _paper_counts() -> dict[str, Any]:
    """SD 2.1 dense and by the paper's rank rule: parameters of U-Net + text encoder + VAE, MACs."""
    parts = build_meta(PAPER_ARCHITECTURE)
    for part in parts.values():
        part.requires_grad_(False)
    unet = parts.pop("unet")
    ranks = plan_ranks(unet, "ratio", ratio=PAPER_RATIO)
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks)
    models = {"dense": unet, "low_rank": student}
    return {
        name: value
        for kind, model in models.items()
        for name, value in _named(
            f"{PAPER_ARCHITECTURE}/{kind}", _counts(model, parts, trained=kind == "low_rank")
        ).items()
    }


def _named(model: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{model}/{quantity}": value for quantity, value in found.items()}
