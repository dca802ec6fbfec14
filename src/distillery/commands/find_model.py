"""Which model a command is asked for, where its parts lie, and how it is drawn if nobody says how.

In: a model's folder, or its name in a project (`unet/elr`), perhaps a params file. Out: its name,
its folders and settings. A model in a folder needs no params: its `student.json` names what it
builds on. Not here: loading and drawing.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distillery.commands.trained import known_near
from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.runtime import Runtime
from distillery.families import FAMILIES, Family
from distillery.families.description import STUDENT, Description, read_description
from distillery.families.load import Folders
from distillery.families.profiled import combined_folders
from distillery.families.teacher import TEACHER
from distillery.params import Params, load_params
from distillery.teacher.load import controlnet_kinds

USUAL_PARAMS = Path("params.yaml")
PIPELINE = "model_index.json"  # what diffusers writes into a pipeline's folder
# For a model whose project is not here; the scale of Stable Diffusion's own examples.
NUM_INFERENCE_STEPS, GUIDANCE_SCALE, BATCH_SIZE = 25, 7.5, 4


@dataclass(frozen=True)
class Choice:
    """A model: `<family>/<variant>`, its folders, and the settings that it is drawn with.

    `settings` has `num_inference_steps`, `guidance_scale`, `resolution_px`, `batch_size`, `device`
    `dtype` (`fp32`, ...) and `runtime`.
    """

    name: str
    folders: Folders
    settings: Mapping[str, Any]

    def told(self, guidance_scale: float) -> Folders:
        """The folders for a student that is told this guidance scale."""
        return dataclasses.replace(self.folders, guidance_scale=guidance_scale)


def choose(model: str, params_file: Path) -> Choice:
    """The model in the folder `model`, or of that name in the project of `params_file`.

    Its settings are those of the params; where there is no params.yaml, what suits the model.
    Raises DistilleryError for a model that is not there, or whose base is another one by now.
    """
    folder = real(Path(model))
    is_usual = params_file == USUAL_PARAMS
    params = None if is_usual and not params_file.is_file() else load_params(params_file)
    if (folder / STUDENT).is_file():
        return _described(folder, params)
    if (folder / PIPELINE).is_file():
        folders = Folders(folder, folder, 0, [0])
        return Choice(f"{TEACHER.name}/guided", folders, _settings(folder, None, params))
    if params is None:
        raise DistilleryError(
            f"{model}: no model's folder ({STUDENT}), and no {params_file} to know the name from; "
            "give the folder"
        )
    return _named(model, params)


def real(folder: Path) -> Path:
    """The folder behind symbolic links: what a student builds on lies beside that one."""
    behind = os.path.realpath(folder)
    return folder if behind == os.path.abspath(folder) else Path(behind)


def folders_of(folder: Path, description: Description) -> Folders:
    """Where a student's parts lie, as it says itself; told the highest scale that it has learned.

    Raises DistilleryError where a part is missing, or is another one by now.
    """
    bases = description.bases(folder)
    if TEACHER.name not in bases:
        raise DistilleryError(f"{folder / STUDENT}: names no teacher; rerun the model's stage")
    teacher = bases.pop(TEACHER.name)
    model = bases.pop("model", folder)  # the trained part of a whole student
    scale = description.sampling.guidance_scale
    highest = max(scale) if isinstance(scale, list) else scale
    return Folders(teacher, model, 0, [0], **bases, guidance_scale=highest)


def _described(folder: Path, params: Params | None) -> Choice:
    """A student that says itself what it is and builds on."""
    description = read_description(folder)
    folders = folders_of(folder, description)
    settings = _settings(folders.teacher, folders.guidance_scale, params)
    return Choice(description.name, folders, settings)


def _named(model: str, params: Params) -> Choice:
    """A model of a project, by the name that the pipeline gives it."""
    name, _, variant = model.rstrip("/").partition("/")
    if name not in FAMILIES:
        raise DistilleryError(
            f"{model}: no model's folder ({STUDENT}) and no name; the families are "
            f"{', '.join(FAMILIES)}{known_near(Path(model))}"
        )
    family, models = FAMILIES[name], Path(params.paths.models)
    teacher = Path(params.paths.teacher)
    if family is TEACHER:
        _require(model, teacher)
        known = TEACHER.variants(controlnet_kinds(teacher))
        if variant not in known:
            raise DistilleryError(f"{model}: the teacher draws as {', '.join(known)}")
        folders = Folders(teacher, teacher, 0, [0])
        return Choice(f"{name}/{variant}", folders, _settings(teacher, None, params))
    if family.stage:
        if not (models / model).is_dir():
            _parts(family, variant, params)  # which says what there are
        _require(model, models / model, teacher)
        return _described(models / model, params)
    parts = _parts(family, variant, params)
    folders = combined_folders(family, parts, teacher, models)
    _require(model, teacher, folders.model, folders.backbone, folders.controlnet)
    return Choice(model, folders, _settings(teacher, None, params))


def _parts(family: Family, variant: str, params: Params) -> Mapping[str, str]:
    """What the params say of a variant; of a student made of others, its parts."""
    known: Any = params
    for key in family.variants_key.split("."):
        known = getattr(known, key)
    if variant not in known:
        raise DistilleryError(
            f"{family.name}/{variant}: params have no {family.variants_key}.{variant}; there are "
            f"{', '.join(known)}"
        )
    return known[variant].model_dump()


def _require(model: str, *folders: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise DistilleryError(
                f"{model}: {folder} is not there; run `snakemake --cores 8 {folder}`"
            )


def _settings(teacher: Path, learned: float | None, params: Params | None) -> dict[str, Any]:
    """Those of the params; without any, what the model was made for: its size, its scale."""
    if params is not None:
        generate = params.generate
        return {
            "num_inference_steps": generate.num_inference_steps,
            "guidance_scale": generate.guidance_scale,
            "resolution_px": params.data.resolution_px,
            "batch_size": generate.batch_size,
            "device": params.device,
            "dtype": generate.dtype,
            "runtime": Runtime(generate.runtime, generate.matmul_precision, generate.memory_format),
        }
    return {
        "num_inference_steps": NUM_INFERENCE_STEPS,
        "guidance_scale": learned or GUIDANCE_SCALE,
        "resolution_px": _own_size_px(teacher),
        "batch_size": BATCH_SIZE,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "dtype": "fp32",
        "runtime": Runtime(),
    }


def _own_size_px(teacher: Path) -> int:
    """The side of the images that a pipeline draws."""
    side = read_json(teacher / "unet" / "config.json")["sample_size"]
    levels = read_json(teacher / "vae" / "config.json")["block_out_channels"]
    return side * 2 ** (len(levels) - 1)
