"""`distillery demo`: a local page on which a teacher and its students draw side by side.

In: a project, or models' folders; a prompt, perhaps a map that was drawn or uploaded. Out: images
with the time and memory that each took. Not here: the page (`demo_page`).
"""

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from distillery.commands.find_model import Choice, choose
from distillery.core.device import claim_device
from distillery.core.errors import DistilleryError
from distillery.core.precision import torch_dtype
from distillery.families import STUDENTS
from distillery.families.description import STUDENT
from distillery.families.load import Student, attach, load_student
from distillery.families.names import label
from distillery.params import load_params
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt
from distillery.teacher.load import Teacher, load_teacher

TEACHER = "teacher/guided"
MAX_LOADED = 4


@dataclass(frozen=True)
class Drawing:
    """An image uint8 [H, W, 3] and what to say under it."""

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class OneMap:
    """A map of one kind for whatever is asked: what the user drew."""

    pixels: np.ndarray
    kinds: tuple[str, ...]

    def images(self, kind: str, keys: Sequence[str]) -> np.ndarray:
        """uint8 [n, H, W, 3]."""
        return np.stack([self.pixels] * len(keys))


def known_models(params_file: Path, models: Sequence[str]) -> list[str]:
    """Those named, else the project's teacher and all its trained students."""
    if models:
        for model in models:
            choose(model, params_file)
        return list(models)
    root = Path(load_params(params_file).paths.models)
    trained = [
        f"{family.name}/{path.parent.name}"
        for family in STUDENTS.values()
        for path in sorted(root.glob(f"{family.name}/*/{STUDENT}"))
    ]
    if not trained:
        raise DistilleryError(
            f"{root}: no students; run `snakemake --cores 8 all`, or name models' folders"
        )
    return [TEACHER, *trained]


@lru_cache(maxsize=MAX_LOADED)
def _opened(model: str, params_file: Path) -> tuple[Choice, Teacher, Student]:
    choice = choose(model, params_file)
    device, dtype = claim_device(choice.settings["device"]), torch_dtype(choice.settings["dtype"])
    folders = choice.told(choice.settings["guidance_scale"])
    student = load_student(choice.name, folders, device, dtype)
    return choice, load_teacher(folders.teacher, device, dtype), student


def draw(
    models: Sequence[str],
    prompt: str,
    *,
    params_file: Path,
    drawn: np.ndarray | None = None,
    kind: str = "canny",
    steps: int = 20,
    seed: int = 0,
) -> Iterator[Drawing]:
    """One image after the other; a model that takes no map of this kind says so in its caption.

    Raises DistilleryError for an empty prompt and for no model.
    """
    if not prompt.strip() or not models:
        raise DistilleryError("type a prompt and pick a model")
    for model in models:
        choice, teacher, student = _opened(model, params_file)
        side = choice.settings["resolution_px"]
        maps, note = _maps(student, drawn, kind, side)
        if student.controlnet is not None and maps is None:
            yield Drawing(np.full((side, side, 3), 230, np.uint8), f"{_name(model)}: {note}")
            continue
        sampler = _sampler(choice.settings, teacher, steps, seed)
        sampler = attach(sampler, student, maps)
        before = time.perf_counter()
        wanted = Prompt("demo", prompt, kind if maps else "")
        image = sampler.images([wanted])[0]
        took = time.perf_counter() - before
        yield Drawing(image, f"{_name(model)}: {took:.1f} s, {_memory()}{note}")


def _sampler(settings: Mapping[str, Any], teacher: Teacher, steps: int, seed: int) -> Sampler:
    own = ("guidance_scale", "resolution_px", "runtime")
    kept = {name: settings[name] for name in own if name in settings}
    return Sampler(teacher, num_inference_steps=steps, noise_seed=seed, **kept)


def _maps(
    student: Student, drawn: np.ndarray | None, kind: str, side_px: int
) -> tuple[OneMap | None, str]:
    """The map for this student, and what to say if it gets none."""
    if student.controlnet is None:
        return None, "" if drawn is None else ", takes no map"
    if drawn is None:
        return None, f"draw or upload a map ({', '.join(student.kinds)})"
    if kind not in student.kinds:
        return None, f"takes {', '.join(student.kinds)} maps"
    pixels = np.asarray(Image.fromarray(drawn).resize((side_px, side_px)))
    return OneMap(pixels, student.kinds), ""


def _name(model: str) -> str:
    return label(model) if "/" in model and not Path(model).is_dir() else Path(model).name


def _memory() -> str:
    """Peak memory: of the GPU since the last drawing, else of this process so far."""
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return f"{peak / 2**30:.2f} GiB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB in this process"
