"""The chain of stages at Stable Diffusion's shapes, in the file of the part `correctness`.

A teacher with random weights, images of a photo shard or drawn scenes at its size, through cache,
decomposition, every family's training for a few steps, generate and evaluate. A training again, and
one that was killed and resumed, must give equal bytes.
"""

import hashlib
import importlib.util
import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chain
import yaml
from common import Place
from short_chain import SCENES, make_teacher, write_params

from parts.correctness import expecting, killed_after

PACKAGES = ("pydantic", "duckdb")  # which stages need and a machine with torch may lack


def run(place: Place) -> None:
    record = place.record("correctness")
    record.values["photos"] = None if place.photos is None else place.photos.name
    if "error" not in record.measure("chain/packages", _packages):
        _chain(place, record)


def _packages() -> dict[str, Any]:
    """Raise RuntimeError where one is missing, before anything is waited for."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise RuntimeError(f"{', '.join(missing)}: not installed; the stages are left out")
    return {"missing": []}


def _chain(place: Place, record: Any) -> None:
    """Stage by stage, each once; then one training again and one that was killed."""
    root = place.work / "chain"
    teacher = SCENES if place.dry else root / "random-sd15"
    if not place.dry and not (teacher / "model_index.json").is_file():
        record.measure("chain/random teacher", _timed, make_teacher, teacher)
    file, params = write_params(place, root, teacher)
    for name in chain.SHORT if place.dry else chain.WHOLE:
        for command in chain.commands(name, params, file)[: 1 if place.dry else None]:
            label = f"chain/{' '.join(_selected(name, command))}"
            found = record.measure(label, _timed, chain.run, command)
            if "error" in found:
                return  # what follows needs it
    if not place.dry:
        record.measure("chain/distill_unet again", _again, params, file, root, False)
        record.measure("chain/distill_unet resumed", _again, params, file, root, True)


def _selected(name: str, command: list[str]) -> list[str]:
    """The stage with its variant, part or view."""
    options = dict(itertools.pairwise(command))
    chosen = [options[f"--{key}"] for key in ("view", "variant", "method", "part")
              if f"--{key}" in options]  # fmt: skip
    return [name, *chosen]


def _timed(job: Callable[..., object], *arguments: Any) -> dict[str, float]:
    started = time.perf_counter()
    job(*arguments)
    return {"seconds": round(time.perf_counter() - started, 2)}


def _again(params: dict[str, Any], file: Path, root: Path, cut: bool) -> dict[str, Any]:
    """The same training into another folder, from other work: equal bytes of its weights."""
    paths = {**params["paths"], "models": str(root / "again"), "work": str(root / "work-again")}
    shutil.rmtree(root / "again", ignore_errors=True)
    shutil.rmtree(root / "work-again", ignore_errors=True)
    other = file.with_name("again.yaml")
    other.write_text(yaml.safe_dump({**params, "paths": paths}))
    (command,) = chain.commands("distill_unet", {**params, "paths": paths}, other)
    if cut:
        with killed_after(3), expecting(RuntimeError):
            chain.run(command)
    chain.run(command)
    hashes = [
        _hash(Path(folder) / "unet/elr") for folder in (params["paths"]["models"], root / "again")
    ]
    return {"equal": hashes[0] == hashes[1]}


def _hash(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        total.update(path.read_bytes())
    return total.hexdigest()
