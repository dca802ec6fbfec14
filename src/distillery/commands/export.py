"""`distillery export`: a student in the form that another tool reads.

In: a model folder that describes itself (`student.json`), a form, a place. Out: a file or a folder
there, shown to answer as the student does before it has its name. Not here: the conversions
(`distillery.export`).
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from diffusers import ControlNetModel, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.export import comfyui_node, hub, kohya, plain, single_file
from distillery.export.hub_card import HubCard, results_of, sections_of
from distillery.families.card import CARD
from distillery.families.description import Description, read_description
from distillery.families.load import Folders, load_student
from distillery.models.control_adapter import ControlAdapter
from distillery.models.load import load_unet
from distillery.models.lora.files import LORA_FILE, load_guidance_unet

CONTROLNETS = ("controlnet", "control")


@dataclass(frozen=True)
class Model:
    """A student: where it lies, what it says of itself, what it builds on."""

    folder: Path
    description: Description
    bases: dict[str, Path]
    unet: UNet2DConditionModel | None
    controlnet: ControlNetModel | None

    @property
    def teacher(self) -> Path:
        return self.bases["teacher"]


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

    `controlnet`, the folder of a ControlNet student, makes a whole student of a U-Net with it.
    Raises DistilleryError where the model has no such form, saying which it has, and where the
    form's answers are not the student's.
    """
    if to not in TARGETS:
        raise DistilleryError(f"--to {to}: unknown; use one of {', '.join(TARGETS)}")
    if out.exists():
        raise DistilleryError(f"{out}: exists already; name a new place, or remove it first")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        _be_quiet()
        TARGETS[to](_open(folder, controlnet), out, options)
    if to == "comfyui-node":
        return (
            f"{out} is written; copy it to ComfyUI/custom_nodes, and {folder} into models/"
            "diffusion_models or models/controlnet there"
        )
    return f"{out} is written, and answers as {folder} does"


def _be_quiet() -> None:
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _open(folder: Path, controlnet: Path | None) -> Model:
    description = read_description(folder)
    if controlnet is not None and description.family in CONTROLNETS:
        raise DistilleryError(f"{folder}: is a ControlNet; --controlnet goes with a U-Net student")
    bases = description.bases(folder)
    if "teacher" not in bases:
        raise DistilleryError(f"{folder}/student.json: names no teacher; rerun the model's stage")
    student = _load(folder, description, bases)
    is_control = description.family in CONTROLNETS
    own = student.controlnet if is_control else None
    if controlnet is not None:
        other = read_description(controlnet)
        own = _load(controlnet, other, other.bases(controlnet)).controlnet
        if own is None:
            raise DistilleryError(f"--controlnet {controlnet}: {other.name} is no ControlNet")
    return Model(folder, description, bases, None if is_control else student.unet, own)


def _load(folder: Path, description: Description, bases: dict[str, Path]) -> Any:
    folders = Folders(
        bases["teacher"], folder, 0, [0],
        backbone=bases.get("backbone"), guidance_scale=_scale(description) or 1.0,
    )  # fmt: skip
    return load_student(description.name, folders)


def _scale(description: Description) -> float | None:
    """The guidance scale that a student has learned, the highest of several; None of the rest."""
    scale = description.sampling.guidance_scale
    return scale if scale is None or isinstance(scale, int | float) else max(scale)


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
    if not (model.folder / LORA_FILE).is_file():
        raise DistilleryError(
            f"{model.folder}: holds no LoRA, the only thing that kohya's form is for; "
            "export --to single-file"
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
    return hub.write(_hub_models(model), out, _card(model, options))


def _to_comfyui_node(model: Model, out: Path, options: Options) -> Path:
    _refuse_adapter(model)
    if (model.folder / LORA_FILE).is_file():
        raise DistilleryError(
            f"{model.folder}: ComfyUI has LoRA nodes of its own; export --to kohya, or --to "
            "single-file for one that was trained on a low-rank U-Net"
        )
    return comfyui_node.write(out)


TARGETS: dict[str, Callable[[Model, Path, Options], Path]] = {
    "diffusers": _to_diffusers,
    "single-file": _to_single_file,
    "kohya": _to_kohya,
    "hub": _to_hub,
    "comfyui-node": _to_comfyui_node,
}


def _refuse_whole(model: Model, form: str) -> None:
    if model.unet is not None and model.controlnet is not None:
        raise DistilleryError(
            f"--controlnet: {form} holds no ControlNet; export both apart, or both together by "
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
    backbone = load_unet(model.bases.get("backbone", model.teacher))
    scale = _scale(model.description)
    return load_guidance_unet(model.folder, backbone, fuse=False, scale=scale)


def _hub_models(model: Model) -> dict[str, Any]:
    """Models by subfolder; a LoRA of a dense U-Net stays a LoRA, of a low-rank one it is merged."""
    is_lora = (model.folder / LORA_FILE).is_file()
    backbone = model.bases.get("backbone", model.teacher)
    unet = _with_lora(model) if is_lora and backbone == model.teacher else model.unet
    parts = {"unet": unet, "controlnet": model.controlnet}
    parts = {name: part for name, part in parts.items() if part is not None}
    return parts if len(parts) > 1 else {hub.ROOT: next(iter(parts.values()))}


def _card(model: Model, options: Options) -> HubCard:
    header, name = _header(model.folder), model.description.name
    sampling = model.description.sampling
    once = sampling.evaluations_per_step == 1
    readme = model.folder / CARD
    project = model.folder.resolve().parents[2]  # of models/<family>/<variant>, not where we stand
    metrics = options.metrics or project / "metrics" / f"{name}.json"
    return HubCard(
        name=name,
        base_model=options.base_model or header.get("base_model", "unknown"),
        license=options.license or header.get("license", "other"),
        guidance_scale=_scale(model.description) if sampling.is_told_scale else 1 if once else None,
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
