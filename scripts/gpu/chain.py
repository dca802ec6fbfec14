"""The commands of the pipeline's stages, run in this process, as dvc.yaml has them.

In: a params file's values. Out: stages run one after another; starting Python for each would take
longer than most of them.
"""

import importlib
import re
import shlex
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("ingest", "curate", "deduplicate", "prepare_teacher", "cache_teacher_base",
         "cache_teacher", "init_student", "distill_unet", "generate_unet")  # fmt: skip
WHOLE = ("ingest", "curate", "deduplicate", "extract_conditions", "prepare_teacher",
         "cache_teacher_base", "cache_teacher", "cache_teacher_control", "init_student",
         "distill_unet", "finetune_control", "distill_controlnet", "distill_guidance",
         "generate_teacher", "generate_unet", "generate_whole", "evaluate_unet")  # fmt: skip


def commands(
    stage: str, params: Mapping[str, Any], file: Path
) -> list[tuple[list[str], list[Path]]]:
    """`[module, arguments...]` of every item of a stage in dvc.yaml, and what it makes.

    `file` is its params file.
    """
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    item, found = entry.get("do", entry), []
    for chosen in _items(entry, params):
        names = {**params, **chosen}
        words = shlex.split(item["cmd"])
        module = [_filled(word, names) for word in words[words.index("-m") + 1 :]]
        command = [str(file) if word == "params.yaml" else word for word in module]
        found.append((command, [Path(_filled(out, names)) for out in item["outs"]]))
    return found


def _items(entry: Mapping[str, Any], params: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "matrix" in entry:
        axes = {name: _value(axis, params) for name, axis in entry["matrix"].items()}
        found = product(*axes.values())
        return [{"item": dict(zip(axes, chosen, strict=True))} for chosen in found]
    if "foreach" in entry:
        each = _value(entry["foreach"], params)
        if isinstance(each, Mapping):
            return [{"key": key, "item": item} for key, item in each.items()]
        return [{"item": item} for item in each]
    return [{}]


def _value(text: Any, names: Mapping[str, Any]) -> Any:
    if not (isinstance(text, str) and text.startswith("${")):
        return text
    found: Any = names
    for key in text[2:-1].split("."):
        found = found[key]
    return found


def _filled(text: str, names: Mapping[str, Any]) -> str:
    return re.sub(r"\$\{[^}]*\}", lambda found: str(_value(found[0], names)), text)


def run(command: list[str]) -> None:
    """One stage; SystemExit of a stage that failed becomes RuntimeError."""
    module, *arguments = command
    stage = getattr(importlib.import_module(module), module.rpartition(".")[2])
    try:
        stage.main(arguments)
    except SystemExit as error:
        raise RuntimeError(f"{' '.join(command)}: ended with {error.code}") from None
