"""`distillery export`: a student in the form that another tool reads.

In: a model folder that describes itself (`student.json`) or a model's name, a form, a place. Out:
a file or a folder there, shown to answer as the student does before it has its name. Not here: the
conversions (`distillery.export`).
"""

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from distillery.commands.opening import Model, open_model
from distillery.core.artifacts import read_json, require_outside
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


@dataclass(frozen=True)
class Options:
    """What the forms need beside the model; each is used by some of them."""

    fp16: bool = False
    license: str | None = None
    base_model: str | None = None
    datasets: Sequence[str] = ()
    metrics: Path | None = None


def export(
    folder: Path, to: str, out: Path, options: Options, controlnet: Path | None = None
) -> str:
    """Write the model in `folder` to `out` in the form `to`; returns a sentence to say.

    `folder` may be a name in the project here (`whole/student`). `controlnet`, the folder of a
    ControlNet student, makes a whole student of a U-Net with it.
    Raises DistilleryError where the model has no such form, saying which it has, and where the
    form's answers are not the student's.
    """
    if to not in TARGETS:
        raise DistilleryError(f"--to {to}: unknown; use one of {', '.join(TARGETS)}")
    if out.exists():
        raise DistilleryError(f"{out}: exists already; name a new place, or remove it first")
    require_outside(out)
    _refuse_unused(to, options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        _be_quiet()
        model = open_model(folder, controlnet)
        TARGETS[to](model, out, options)
        is_unet = model.unet is not None
    if to == "comfyui-node":
        place = "diffusion_models" if is_unet else "controlnet"
        return (
            f"{out} is written; copy it to ComfyUI/custom_nodes, and {folder} into models/{place} "
            "there"
        )
    if to == "student":
        return f"{out} is written: {folder} and {controlnet or 'its ControlNet'} as one student"
    return f"{out} is written, and answers as {folder} does"


def _refuse_unused(to: str, options: Options) -> None:
    """What the form takes no notice of is no option of it."""
    for option, (given, takers) in {
        "--fp16": (options.fp16, ("single-file",)),
        "--base-model": (options.base_model, ("hub", "kohya")),
        "--license": (options.license, ("hub",)),
        "--dataset": (options.datasets, ("hub",)),
        "--metrics": (options.metrics, ("hub",)),
    }.items():
        if given and to not in takers:
            raise DistilleryError(f"{option} goes with --to {' or '.join(takers)}, not {to}")


def _be_quiet() -> None:
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


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


TARGETS: dict[str, Callable[[Model, Path, Options], Path]] = {
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
