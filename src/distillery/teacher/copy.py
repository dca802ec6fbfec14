"""The copy of a teacher that this project works with.

In: a teacher's folder, expected hashes, folders of ControlNets. Out: a new folder with what a
teacher needs (JSON, text and safetensors of known components, nothing else). Its
`model_index.json` names just that, so that diffusers loads it. Nothing is checked but hashes.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from distillery.core.artifacts import hash_file, read_json
from distillery.core.errors import DamagedError, DistilleryError
from distillery.teacher.parts import INDEX, REQUIRED, payload, require_components, weights_of

_CLASSES = {
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}


def copy_teacher(source: Path, target: Path, sha256: Mapping[str, str]) -> None:
    """Copy a teacher's components to the new folder `target` and check them.

    `sha256` maps relative names to expected hashes. Raises DistilleryError for a missing component
    or file, and DamagedError for a hash that differs.
    """
    require_components(source)
    for path in payload(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for name, expected in sha256.items():
        if not (target / name).is_file():
            raise DistilleryError(
                f"{source / name}: not found, but prepare_teacher.sha256 lists it"
            )
        if (actual := hash_file(target / name)) != expected.lower():
            raise DamagedError(
                f"{source / name}: sha256 is {actual}, expected {expected}; the file is damaged or "
                "another version: remove it and run again, or correct prepare_teacher.sha256"
            )
    _complete_index(target)
    _complete_tokenizer(target)


def replace_controlnet(kind: str, source: Path, teacher: Path) -> None:
    """Copy config and safetensors of a ControlNet into a teacher's folder, as `controlnet_<kind>`.

    One that came with the teacher is replaced.
    """
    target = teacher / f"controlnet_{kind}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted([source / "config.json", *weights_of(source)]):
        shutil.copyfile(path, target / path.name)


def _complete_index(teacher: Path) -> None:
    """Let `model_index.json` name the components that are there and no others.

    Safety checkers and feature extractors, which published folders have, are not copied.
    """
    path = teacher / INDEX
    given = read_json(path) if path.is_file() else {}
    index = {name: [None, None] if isinstance(value, list) and name not in REQUIRED else value
             for name, value in given.items()}  # fmt: skip
    index |= {name: _CLASSES[name] for name in REQUIRED if name not in index}
    index |= {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False}
    for name in ("feature_extractor", "safety_checker"):
        index.setdefault(name, [None, None])
    _rewrite(path, given, index)


def _complete_tokenizer(teacher: Path) -> None:
    """Write down how many tokens the text encoder takes where the tokenizer does not say so."""
    path = teacher / "tokenizer/tokenizer_config.json"
    given, limit = read_json(path), read_json(teacher / "text_encoder/config.json")
    if longest := limit.get("max_position_embeddings"):
        length = min(given.get("model_max_length") or longest, longest)
        _rewrite(path, given, given | {"model_max_length": length})


def _rewrite(path: Path, given: dict, wanted: dict) -> None:
    if given != wanted:
        path.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n", encoding="utf-8")
