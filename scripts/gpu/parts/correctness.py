"""The chain at Stable Diffusion's shapes, and what must not change: hashes and weights.

A teacher with random weights, images of a photo shard or drawn scenes at its size, through cache,
decomposition, every family's training for a few steps, generate and evaluate. A training again, and
one that was killed and resumed, must give equal bytes; each runtime the weights of eager training
after 20 steps; a steady step must not wait for the device; CPU and GPU must draw alike.
"""

import hashlib
import importlib.util
import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import chain
import numpy as np
import torch
import yaml
from common import Place
from invented import Cached
from short_chain import SCENES, make_teacher, write_params

from distillery.core.progress import bar
from distillery.core.runtime import Runtime
from distillery.cost.accounting import load_architecture, low_rank_unet
from distillery.cost.full_size.device import materialise
from distillery.cost.full_size.training import diffusion
from distillery.diffusion.objectives import DistillOutput, cached_output
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt
from distillery.teacher.load import load_teacher
from distillery.train import loop, step
from distillery.train.loop import Place as TrainingPlace
from distillery.train.loop import fit
from distillery.train.order import Shuffled
from distillery.train.settings import Settings
from parts.training import Sizes, bare_step, sizes_of

NUM_STEPS = 20
PACKAGES = ("pydantic", "duckdb")  # which stages need and a machine with torch may lack


def run(place: Place) -> None:
    record = place.record("correctness")
    record.values["photos"] = None if place.photos is None else place.photos.name
    has_all = "error" not in record.measure("chain/packages", _packages)
    record.measure("runtimes/eager again", _same_weights, place, "eager")
    if not place.dry:
        record.measure("runtimes/graph", _same_weights, place, "graph")
        record.measure("runtimes/graph resumed", _resumed, place, "graph")
        record.measure("no waiting in steady steps", _no_waiting, place)
        for is_strict in (False, True):
            name = f"full-size training again, {'strict' if is_strict else 'as it is'}"
            record.measure(name, _full_size_again, place, is_strict)
    record.measure("scenes drawn on CPU and here", _drawn_alike, place)
    if has_all:
        _chain(place, record)
    if not place.dry:
        record.measure("runtimes/compile", _same_weights, place, "compile")


def _packages() -> dict[str, Any]:
    """Raise RuntimeError where one is missing, before anything is waited for."""
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise RuntimeError(f"{', '.join(missing)}: not installed; the stages are left out")
    return {"missing": []}


def _train(place: Place, kind: str, folder: Path, **changed: Any) -> torch.Tensor:
    """The low-rank student of the shipped teacher's size after 20 steps; its weights as one row."""
    unet = load_architecture("scenes")["unet"]
    model = low_rank_unet(unet).float().requires_grad_(True).train()
    torch.manual_seed(0)
    materialise([model], torch.device("cpu"))
    side = unet.config.sample_size
    latent, text = (unet.config.in_channels, side, side), (16, unet.config.cross_attention_dim)
    sizes = Sizes(4, 2 if place.dry else NUM_STEPS, latent, text, 64)
    chosen = {**vars(sizes.settings(kind, "fp32")), "learning_rate": 1e-3,
              "matmul_precision": "highest", **changed}  # fmt: skip
    where = TrainingPlace(place.device, folder, lambda n, **options: bar(n, "train", **options))
    lesson = DistillOutput(diffusion(), cached_output("cond"))
    batches = Shuffled(Cached(sizes.latent, sizes.text, num=16), sizes.batch, 0)
    fit(model, lesson, batches, Settings(**chosen), where, seed=0)
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


def _fresh(place: Place, name: str) -> Path:
    folder = place.work / "correctness" / name
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _eager(place: Place) -> torch.Tensor:
    return _train(place, "eager", _fresh(place, "eager"))


def _same_weights(place: Place, kind: str) -> dict[str, Any]:
    """How far the weights of a runtime are from those of eager training."""
    return _compared(_eager(place), _train(place, kind, _fresh(place, kind)))


def _compared(one: torch.Tensor, other: torch.Tensor) -> dict[str, Any]:
    difference = (one - other).abs().max() / one.abs().max()
    return {"equal": torch.equal(one, other), "relative_difference": float(difference)}


def _resumed(place: Place, kind: str) -> dict[str, Any]:
    """Killed after 12 of 20 steps and started again, against the same without."""
    whole = _train(place, kind, _fresh(place, "whole"), checkpoint_every_steps=5)
    folder = _fresh(place, "cut")
    with _killed_after(12), _expecting(KeyboardInterrupt):
        _train(place, kind, folder, checkpoint_every_steps=5)
    return _compared(whole, _train(place, kind, folder, checkpoint_every_steps=5))


@contextmanager
def _killed_after(num_steps: int) -> Iterator[None]:
    """A training is interrupted as by Ctrl-C."""
    call, count = step.Step.__call__, itertools.count(1)

    def counted(self: step.Step, parts: Any) -> Any:
        if next(count) > num_steps:
            raise KeyboardInterrupt
        return call(self, parts)

    with mock.patch.object(step.Step, "__call__", counted):
        yield


@contextmanager
def _expecting(kind: type[BaseException]) -> Iterator[None]:
    try:
        yield
    except kind:
        return
    raise RuntimeError(f"no {kind.__name__} came")


def _no_waiting(place: Place) -> dict[str, Any]:
    """torch refuses what makes the host wait, in steps 6 to 20, for each runtime."""
    call, found = step.Step.__call__, {}

    def watched(self: step.Step, parts: Any) -> Any:
        torch.cuda.set_sync_debug_mode("error" if self._state.step > 5 else "default")
        try:
            return call(self, parts)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for kind in ("eager", "graph"):
        with (
            mock.patch.object(step.Step, "__call__", watched),
            mock.patch.object(loop, "MAX_LOGGED_STEPS", 2),
        ):
            try:
                _train(place, kind, _fresh(place, "waiting"))
                found[kind] = "none"
            except RuntimeError as error:
                found[kind] = str(error).splitlines()[0]
    return found


def _full_size_again(place: Place, is_strict: bool) -> dict[str, Any]:
    """Two equal trainings of the dense U-Net, and what a step takes.

    PyTorch's attention has a deterministic backward pass only where it may refuse operations that
    have none, which is `strict`.
    """
    torch.use_deterministic_algorithms(True, warn_only=not is_strict)
    try:
        found = [bare_step(place, "dense", "graph", sizes_of(place)) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)
    (one, weights), (_, again) = found
    return {**_compared(weights, again), "ms": one["ms"]}


def _drawn_alike(place: Place) -> dict[str, Any]:
    """The shipped teacher's images here against the CPU's, and recorded against eager ones."""
    prompts = [Prompt(str(i), "a red circle on a blue background") for i in range(2)]

    def draw(device: torch.device, kind: str) -> np.ndarray:
        teacher = load_teacher(SCENES, device, torch.float32)
        steps = 1 if place.dry else 12
        sampler = Sampler(teacher, steps, 3.0, 64, 0, runtime=Runtime(kind))
        return sampler.images(prompts).astype(int)

    cpu, here = draw(torch.device("cpu"), "eager"), draw(place.device, "eager")
    found = {"largest_difference_of_255": int(np.abs(cpu - here).max())}
    if not place.dry:
        found["graph_equals_eager"] = bool((draw(place.device, "graph") == here).all())
    return found


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
        with _killed_after(3), _expecting(RuntimeError):
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
