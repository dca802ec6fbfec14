"""The forms of `distillery export`, and which of them a model has.

In: a model's folder or name, a form, what the form needs beside. Out: a file or a folder. Not here:
the conversions (`distillery.export`).
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from diffusers import UNet2DConditionModel

from distillery.commands.export_options import Options
from distillery.commands.opening import Model, open_model
from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish
from distillery.export import comfyui_node, hub, kohya, plain, single_file
from distillery.export.hub_card import HubCard, results_of, sections_of
from distillery.families.card import CARD
from distillery.families.description import write_description
from distillery.families.whole import describe
from distillery.models.control_adapter import ControlAdapter
from distillery.models.load import load_unet
from distillery.models.lora.files import LORA_FILE, load_guidance_unet

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write(folder: Path, to: str, out: Path, options: Options, controlnet: Path | None) -> bool:
    """Write the model to `out` in the form `to`; whether it has a U-Net."""
    model = open_model(folder, controlnet)
    _TARGETS[to](model, out, options)
    return model.unet is not None


def _to_diffusers(model: Model, out: Path, options: Options) -> Path:
    _refuse_whole(model, "a pipeline folder")
    _refuse_adapter(model)
    if model.unet is None:
        return plain.write_controlnet(model.controlnet, out)
    return plain.write_pipeline(model.unet, model.teacher, out)


def _to_single_file(model: Model, out: Path, options: Options) -> Path:
    _refuse_whole(model, "a checkpoint file")
    _refuse_adapter(model)
    if model.unet is None:
        return single_file.write_controlnet(model.controlnet, out, options.fp16)
    return single_file.write_checkpoint(model.unet, model.teacher, out, options.fp16)


def _to_kohya(model: Model, out: Path, options: Options) -> Path:
    _refuse_whole(model, "a LoRA file")
    if not (model.folder / LORA_FILE).is_file():
        raise DistilleryError(
            f"{model.folder}: holds no LoRA, the only thing that kohya's form is for; "
            "export --to single-file, or --to hub"
        )
    header = _header(model.folder)
    schedule = read_json(model.teacher / "scheduler" / "scheduler_config.json")
    return kohya.write(
        _with_lora(model), out,
        name=model.description.variant,
        base_model=options.base_model or header.get("base_model", "unknown"),
        prediction_type=schedule.get("prediction_type", "epsilon"),
    )  # fmt: skip


def _to_hub(model: Model, out: Path, options: Options) -> Path:
    card = _card(model, options)
    if not _HUB_ID.fullmatch(card.base_model):
        print(
            f"{out}: its card names the base model {card.base_model}, which is no id of the hub; "
            "give the teacher's by --base-model where it has one",
            file=sys.stderr,
        )
    return hub.write(_hub_models(model), out, card)


def _to_comfyui_node(model: Model, out: Path, options: Options) -> Path:
    _refuse_adapter(model)
    if (model.folder / LORA_FILE).is_file():
        raise DistilleryError(
            f"{model.folder}: ComfyUI has LoRA nodes of its own; export --to kohya, or --to "
            "single-file for one that was trained on a low-rank U-Net"
        )
    return comfyui_node.write(out)


def _to_student(model: Model, out: Path, options: Options) -> Path:
    if model.controlnet is None or model.other is None:
        raise DistilleryError(
            f"{model.folder}: is a student's folder already; --to student puts a guidance student "
            "and a --controlnet together"
        )
    described = describe(out, model.folder, model.other)
    with publish(out) as partial:
        partial.mkdir()
        write_description(partial, described)
    return out


_TARGETS: dict[str, Callable[[Model, Path, Options], Path]] = {
    "diffusers": _to_diffusers,
    "single-file": _to_single_file,
    "kohya": _to_kohya,
    "hub": _to_hub,
    "comfyui-node": _to_comfyui_node,
    "student": _to_student,
}


def _refuse_whole(model: Model, form: str) -> None:
    if model.unet is not None and model.controlnet is not None:
        raise DistilleryError(
            f"{model.other}: {form} holds no ControlNet; export both apart, or both together by "
            "--to hub"
        )


def _refuse_adapter(model: Model) -> None:
    if isinstance(model.controlnet, ControlAdapter):
        raise DistilleryError(
            f"{model.folder}: a control adapter's encoder has norms of its own, which other tools "
            "have no layers for; load it with ControlAdapter.from_pretrained"
        )


def _with_lora(model: Model) -> UNet2DConditionModel:
    """The backbone with the LoRA beside its weights, not merged into them."""
    backbone = load_unet(model.backbone)
    return load_guidance_unet(
        model.folder, backbone, fuse=False, scale=model.folders.guidance_scale
    )


def _hub_models(model: Model) -> dict[str, Any]:
    """Models by subfolder; a LoRA of a dense U-Net stays a LoRA, of a low-rank one it is merged."""
    is_lora = (model.folder / LORA_FILE).is_file()
    unet = _with_lora(model) if is_lora and model.backbone == model.teacher else model.unet
    parts = {"unet": unet, "controlnet": model.controlnet}
    parts = {name: part for name, part in parts.items() if part is not None}
    return parts if len(parts) > 1 else {hub.ROOT: next(iter(parts.values()))}


def _card(model: Model, options: Options) -> HubCard:
    header, name = _header(model.folder), model.name
    sampling, scale = model.description.sampling, model.folders.guidance_scale
    once = sampling.evaluations_per_step == 1
    readme = model.folder / CARD
    project = model.folder.resolve().parents[2]  # of models/<family>/<variant>, not where we stand
    metrics = options.metrics or project / "metrics" / f"{name}.json"
    return HubCard(
        name=name,
        base_model=options.base_model or header.get("base_model", "unknown"),
        license=options.license or header.get("license", "other"),
        guidance_scale=scale if sampling.is_told_scale else 1 if once else None,
        datasets=options.datasets,
        results=results_of(metrics) if options.metrics or metrics.is_file() else None,
        about=sections_of(readme.read_text(encoding="utf-8")) if readme.is_file() else "",
    )


def _header(folder: Path) -> dict[str, Any]:
    """The header of the model folder's own card."""
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    return yaml.safe_load(text.split("---\n")[1]) or {}
