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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import chain
import yaml
from common import Place, Record
from short_chain import SCENES, make_teacher, write_params

from parts.correctness import expecting, killed_after

PACKAGES = ("pydantic", "duckdb")  # which stages need and a machine with torch may lack


def run(place: Place) -> None:
    record = place.record("correctness")
    record.values["photos"] = None if place.photos is None else place.photos.name
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    record.values["rows"]["chain/packages"] = {"missing": missing}
    record.write()
    if missing:
        print(f"{', '.join(missing)}: not installed; the stages are left out", flush=True)
        return
    _chain(record, _steps(place))


@dataclass(frozen=True)
class Step:
    """A row of the chain: what is called, and the files that later steps need of it."""

    row: str
    job: Callable[[], object]
    outs: Sequence[Path] = ()


def _steps(place: Place) -> list[Step]:
    """Stage by stage; then one training again and one that was killed."""
    root = place.work / "chain"
    teacher = SCENES if place.dry else root / "random-sd15"
    file, params = write_params(place, root, teacher)
    steps = []
    for name in chain.SHORT if place.dry else chain.WHOLE:
        for command, outs in chain.commands(name, params, file)[: 1 if place.dry else None]:
            label = f"chain/{' '.join(_selected(name, command))}"
            steps.append(Step(label, partial(_timed, chain.run, command), outs))
    if place.dry:
        return steps
    made = partial(_timed, make_teacher, teacher)
    return [
        Step("chain/random teacher", made, [teacher / "model_index.json"]),
        *steps,
        Step("chain/distill_unet again", partial(_again, params, file, root, False)),
        Step("chain/distill_unet resumed", partial(_again, params, file, root, True)),
    ]


def _chain(record: Record, steps: Sequence[Step]) -> None:
    """Each step once; none after one that failed, but for those that no other needs.

    What is measured is made again, though not measured, where its files are gone and a later step
    is left that needs them; then also all between, which were made from the former files.
    """
    left = [number for number, step in enumerate(steps) if not record.has(step.row)]
    is_anew = False
    for step in steps[: max(left, default=-1) + 1]:
        if not record.has(step.row):
            if "error" in record.measure(step.row, step.job) and step.outs:
                return  # what follows needs it
        elif step.outs and (is_anew or not all(path.exists() for path in step.outs)):
            print(f"{step.row}: made again, its files are gone", flush=True)
            is_anew = True
            step.job()


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
    ((command, _),) = chain.commands("distill_unet", {**params, "paths": paths}, other)
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
