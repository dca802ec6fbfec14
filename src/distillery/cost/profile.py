"""The profile of a teacher and its students: what is counted and what is measured.

In: models as `profiled` opens them. Out: the dict of `metrics/profile.json`, the
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

from distillery.core.artifacts import content_of
from distillery.cost import timing as cost
from distillery.cost.counts import COLUMNS, count_macs, count_parameters
from distillery.cost.workload import Profiled, Workload, controlnet_alone, unet_alone
from distillery.metrics.intervals import exact, metrics_file
from distillery.models.architectures import build_meta
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.student_controlnet.model import StudentControlNet
from distillery.models.student_controlnet.presets import PRESETS, meta_controlnet
from distillery.teacher.load import load_module

PAPER_ARCHITECTURE = "sd21"
PAPER_RATIO = 1 / 3
ORIGINAL = "original"  # has the teacher's size
AS_TRAINED = "the model as it trains: a LoRA beside its base, with text encoder and VAE"
AS_TRAINED_STEP = "training step of the model as it trains"


def profile_models(
    models: Mapping[str, Profiled],
    shared: Mapping[str, nn.Module],
    device: torch.device,
    *,
    batch_size: int,
    num_repeats: int,
    on_repeat: Callable[[int], object] = lambda count: None,
) -> dict[str, Any]:
    """Count and time every model at its own size; `shared` are text encoder and VAE."""
    tokens = num_tokens(shared["text_encoder"])
    quantities: dict[str, Any] = {}
    for name, model in models.items():
        quantities |= _named(name, _counts(model, shared, tokens))
    quantities |= _measured(models, batch_size, tokens, num_repeats, on_repeat)
    if device.type != "cuda":
        quantities |= _predicted_memory(models)
    return quantities | _paper_counts()


def load_shared(teacher: Path) -> dict[str, nn.Module]:
    """The parts that no student changes: text encoder and VAE."""
    return {
        "text_encoder": load_module(CLIPTextModel, teacher, "text_encoder", "cpu", torch.float32),
        "vae": load_module(AutoencoderKL, teacher, "vae", "cpu", torch.float32),
    }


def profile_file(
    quantities: Mapping[str, Any], device: torch.device, **inputs: Path
) -> dict[str, Any]:
    """The content of `metrics/profile.json`."""
    fingerprints = {name: content_of(folder) for name, folder in inputs.items()}
    return {**metrics_file({0: dict(quantities)}, {}, fingerprints), "device": device_name(device)}


def device_name(device: torch.device) -> str:
    """The CUDA device's name, or `cpu`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def num_tokens(text_encoder: CLIPTextModel) -> int:
    """How many text tokens the U-Net attends to."""
    return text_encoder.config.max_position_embeddings


def num_rounds(models: Mapping[str, Profiled], num_repeats: int) -> int:
    """How often `on_repeat` will be called."""
    num_trained = sum(bool(model.trained) for model in models.values())
    return (len(models) + num_trained) * (num_repeats + 1)


def _counts(model: Profiled, shared: Mapping[str, nn.Module], tokens: int) -> dict[str, Any]:
    """Parameters as they train, and of what one evaluation goes through; its MACs."""
    counts = count_parameters({**model.parts, **shared}, model.trained)
    settings = {"basis": "counted", "of": AS_TRAINED}
    quantities = {f"parameters_{column}": (exact(counts[column]), settings) for column in COLUMNS}
    quantities["bytes_on_disk"] = (exact(counts["bytes_on_disk"]), {**settings, "dtype": "float32"})
    per = {"basis": "counted", "per": f"{model.per}, batch size 1"}
    evaluated = count_parameters(model.evaluated or model.parts)["total"]
    quantities["parameters_evaluated"] = (exact(evaluated), {"basis": "counted", "of": model.per})
    return {
        **quantities,
        "macs": (exact(count_run(model.run, Workload.of(model.unet, 1, tokens))), per),
    }


def count_run(run: Callable[..., Any], workload: Workload) -> int:
    """MACs of a function of a workload."""
    return count_macs(_Evaluation(run), workload)


class _Evaluation(nn.Module):
    """A function as a module, for counting."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: Any) -> Any:
        return self.run(*inputs)


def _measured(
    models: Mapping[str, Profiled],
    batch_size: int,
    tokens: int,
    num_repeats: int,
    on_repeat: Callable[[int], object],
) -> dict[str, Any]:
    works = {name: Workload.of(m.unet, batch_size, tokens) for name, m in models.items()}
    latency = {f"{n}/latency_s": cost.latency_job(m.run, works[n]) for n, m in models.items()}
    steps = {
        f"{n}/train_step_s": cost.training_job(m.train or m.run, works[n], m.trained)
        for n, m in models.items()
        if m.trained
    }
    quantities = cost.time_in_turn(latency, num_repeats, batch_size, on_repeat)
    quantities |= cost.time_in_turn(steps, num_repeats, batch_size, on_repeat)
    for kind, jobs in (("memory_bytes", latency), ("train_memory_bytes", steps)):
        for name, job in jobs.items():
            if (peak := cost.peak_memory_bytes(job)) is not None:
                settings = {"basis": "measured", "batch_size": batch_size, "kind": "peak allocated"}
                quantities[f"{name.rpartition('/')[0]}/{kind}"] = (exact(peak), settings)
    return {
        name: (e, {"basis": "measured", "per": _per(name, models), **settings})
        for name, (e, settings) in quantities.items()
    }


def _per(name: str, models: Mapping[str, Profiled]) -> str:
    """What a measured quantity is of."""
    model, _, quantity = name.rpartition("/")
    return AS_TRAINED_STEP if quantity.startswith("train_") else models[model].per


def _predicted_memory(models: Mapping[str, Profiled]) -> dict[str, Any]:
    """Device memory that the parameters alone need, where none can be measured.

    Evaluation: float32 weights. Training: weights, and gradients and AdamW's two moments of what
    is trained.
    """
    settings = {"basis": "predicted", "note": cost.NO_MEMORY}
    quantities: dict[str, Any] = {}
    for name, model in models.items():
        kind = {**settings, "kind": f"float32 weights of one {model.per}, without activations"}
        size = _weight_bytes(model.evaluated or model.parts)
        quantities[f"{name}/memory_bytes"] = (exact(size), kind)
        if model.trained:
            kind = {**settings, "kind": "weights, gradients and Adam moments, without activations"}
            moved = 12 * sum(parameter.numel() for parameter in model.trained)
            size = _weight_bytes(model.parts)
            quantities[f"{name}/train_memory_bytes"] = (exact(size + moved), kind)
    return quantities


def _weight_bytes(parts: Mapping[str, nn.Module]) -> int:
    return 4 * count_parameters(parts)["total"]


def _paper_counts() -> dict[str, Any]:
    """SD 2.1 dense and by the paper's rank rule, with text encoder and VAE; its ControlNets."""
    parts = build_meta(PAPER_ARCHITECTURE)
    for part in parts.values():
        part.requires_grad_(False)
    unet = parts.pop("unet")
    ranks = plan_ranks(unet, "ratio", PAPER_RATIO)
    student = LowRankUNet2DConditionModel.empty(unet.config, ranks)
    tokens = num_tokens(parts["text_encoder"])
    quantities: dict[str, Any] = {}
    for kind, model in (("dense", unet), ("low_rank", student)):
        trained = list(model.parameters()) if model is student else []
        profiled = Profiled(model, {"unet": model}, unet_alone(model), trained)
        quantities |= _named(f"{PAPER_ARCHITECTURE}/{kind}", _counts(profiled, parts, tokens))
    return quantities | _paper_controlnets(unet, tokens)


def _paper_controlnets(unet: UNet2DConditionModel, tokens: int) -> dict[str, Any]:
    """SD 2.1's ControlNet and the named students of it, alone."""
    teacher = meta_controlnet(PAPER_ARCHITECTURE)
    models = {
        "teacher": teacher,
        **{n: StudentControlNet.empty(teacher, s) for n, s in PRESETS.items() if n != ORIGINAL},
    }
    quantities: dict[str, Any] = {}
    for name, model in models.items():
        trained = [] if model is teacher else list(model.parameters())
        run = controlnet_alone(model)
        profiled = Profiled(unet, {"controlnet": model}, run, trained, "ControlNet evaluation")
        quantities |= _named(
            f"{PAPER_ARCHITECTURE}/controlnet/{name}", _counts(profiled, {}, tokens)
        )
    return quantities


def _named(model: str, quantities: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{model}/{quantity}": value for quantity, value in quantities.items()}
