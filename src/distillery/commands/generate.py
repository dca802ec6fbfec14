"""`distillery generate`: prompts in, images by any model of this project out.

In: a model as the pipeline calls it (`unet/elr`), prompts, for a controlled model condition maps.
Out: a folder of PNG files and `prompts.json`, which `distillery evaluate` takes as they are. A
call that was interrupted goes on where it stopped; images of other settings are never mixed in.
Not here: the pipeline's own samples of the test prompts (`stages.generate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillery.core.artifacts import content_of, publish, read_json, write_json
from distillery.core.device import claim_device
from distillery.core.errors import DistilleryError
from distillery.core.precision import torch_dtype
from distillery.core.progress import bar
from distillery.data.conditions.reader import MapFiles
from distillery.data.image_folders import list_images, load_prompts
from distillery.families.load import Folders, Student, attach, load_student
from distillery.params import Params, load_params
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import Prompt, batches, encode_png
from distillery.teacher.load import load_teacher

PROMPTS = "prompts.json"
SETTINGS = "generate.json"


def generate(
    model: str,
    out: Path,
    *,
    params_file: Path,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    conditions: Path | None = None,
    kind: str | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw one image per prompt into the folder `out`; returns {"images", "drawn", "out"}.

    The noise of an image follows from `seed` and its name, so that models can be compared image by
    image. `kind` says what the maps in `conditions` are; a model of one kind need not be told.
    `overrides` replace values of the params file: `num_inference_steps`, `guidance_scale`,
    `batch_size`, `resolution_px`, `device`.

    Raises DistilleryError for a model, a prompt or a map that is not there, and where `out` holds
    images of other settings.
    """
    params = load_params(params_file)
    wanted = _prompts(prompts, prompts_file)
    folders = find_folders(model, params)
    given = _checked(overrides or {})
    device = claim_device(given.pop("device", params.device))
    batch_size = given.pop("batch_size", params.generate.batch_size)
    student = load_student(model, folders, device, torch_dtype(params.generate.dtype))
    kind = _kind(model, student, conditions, kind)
    settings = {
        "model": model, "seed": seed, "kind": kind, **_sampling(params), **given,
        "contents": _contents(folders, conditions),
    }  # fmt: skip
    todo = _undrawn(out, settings, wanted)
    maps = _maps(student, conditions, kind, wanted, settings["resolution_px"])
    sampler = Sampler(
        load_teacher(folders.teacher, device, torch_dtype(params.generate.dtype)),
        settings["num_inference_steps"],
        settings["guidance_scale"],
        settings["resolution_px"],
        seed,
    )
    _record(out, settings, wanted)
    _draw(
        out, attach(sampler, student, maps), [replace(p, condition=kind) for p in todo], batch_size
    )
    return {"images": len(wanted), "drawn": len(todo), "out": str(out)}


def _checked(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What is given of them; held to what params.yaml allows."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if (device := given.get("device", "cpu")) not in ("cpu", "cuda"):
        raise DistilleryError(f"--device {device}: use cpu or cuda")
    if (side := given.get("resolution_px", 8)) % 8:
        raise DistilleryError(f"--resolution {side}: use a multiple of 8")
    return given


def find_folders(model: str, params: Params) -> Folders:
    """Where `<family>/<variant>` and what it builds on lie in a project; all must be there."""
    family, _, name = model.partition("/")
    teacher, models = Path(params.paths.teacher), Path(params.paths.models)
    beside: dict[str, Path] = {}
    if family == "teacher":
        own = teacher
    elif family == "whole":
        parts = _entry(model, "generate.whole", params.generate.whole, name)
        own = models / "guidance" / parts.guidance
        beside["backbone"] = models / parts.backbone
        beside["controlnet"] = models / "controlnet" / parts.controlnet
    else:
        own = models / model
        sections = {"control": "finetune_control", "guidance": "distill_guidance"}
        if section := sections.get(family):
            variants = getattr(params, section).variants
            base = _entry(model, f"{section}.variants", variants, name).backbone
            beside["backbone"] = teacher if base == "teacher" else models / base
    for folder in (teacher, own, *beside.values()):
        if not folder.is_dir():
            raise DistilleryError(
                f"{model}: {folder} is not there; run `snakemake --cores 8 {folder}`"
            )
    scale = params.generate.guidance_scale
    return Folders(teacher, own, 0, [0], guidance_scale=scale, **beside)


def _entry(model: str, key: str, known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise DistilleryError(f"{model}: params have no {key}.{name}; there are {', '.join(known)}")
    return known[name]


def _contents(folders: Folders, conditions: Path | None) -> dict[str, str]:
    """Short hashes of everything that the images depend on."""
    parts = {"teacher": folders.teacher, "model": folders.model, "backbone": folders.backbone,
             "controlnet": folders.controlnet, "conditions": conditions}  # fmt: skip
    return {name: content_of(path)[:16] for name, path in parts.items() if path is not None}


def _sampling(params: Params) -> dict[str, Any]:
    return {
        "num_inference_steps": params.generate.num_inference_steps,
        "guidance_scale": params.generate.guidance_scale,
        "resolution_px": params.data.resolution_px,
    }


def _prompts(texts: Sequence[str], file: Path | None) -> list[Prompt]:
    """Prompts with their names in the file, or numbered those of the command line."""
    if bool(texts) == bool(file):
        raise DistilleryError("no prompts, or two kinds; give --prompt TEXT or --prompts FILE")
    found = load_prompts(file) if file else {f"{n:05d}": text for n, text in enumerate(texts)}
    return [Prompt(name, text) for name, text in found.items()]


def _undrawn(out: Path, settings: dict[str, Any], wanted: Sequence[Prompt]) -> list[Prompt]:
    """The prompts without an image in `out`; raises DistilleryError if it holds other images."""
    known = read_json(out / SETTINGS) if (out / SETTINGS).is_file() else settings
    for name, value in settings.items():
        if known.get(name) != value:
            raise DistilleryError(
                f"{out}: holds images of {name} {known.get(name)}, not {value}; give another --out"
            )
    captions, undrawn = _captions(out), []
    for prompt in wanted:
        image = out / f"{prompt.key}.png"
        if not image.is_file():
            undrawn.append(prompt)
        elif prompt.key not in captions:
            raise DistilleryError(f"{image}: was not drawn by this command; give another --out")
        if captions.get(prompt.key, prompt.caption) != prompt.caption:
            raise DistilleryError(
                f"{image}: of another prompt, {captions[prompt.key]!r}; give another --out"
            )
    return undrawn


def _record(out: Path, settings: dict[str, Any], wanted: Sequence[Prompt]) -> None:
    """Write down what `out` holds, before it does."""
    write_json(out / SETTINGS, settings)
    write_json(out / PROMPTS, _captions(out) | {p.key: p.caption for p in wanted})


def _captions(out: Path) -> dict[str, str]:
    return read_json(out / PROMPTS) if (out / PROMPTS).is_file() else {}


def _kind(model: str, student: Student, conditions: Path | None, kind: str | None) -> str:
    """The kind of the maps, "" for a model that takes none."""
    if student.controlnet is None:
        if conditions is not None:
            raise DistilleryError(f"--conditions {conditions}: {model} takes no condition maps")
        return ""
    if conditions is None:
        raise DistilleryError(
            f"{model}: needs --conditions, a folder of {' or '.join(student.kinds)} maps named "
            "like the prompts"
        )
    if kind is None and len(student.kinds) == 1:
        return student.kinds[0]
    if kind not in student.kinds:
        raise DistilleryError(f"--condition-kind {kind}: {model} takes {', '.join(student.kinds)}")
    return kind


def _maps(
    student: Student, conditions: Path | None, kind: str, wanted: Sequence[Prompt], size_px: int
) -> MapFiles | None:
    if conditions is None:
        return None
    files = list_images(conditions)
    if lost := [prompt.key for prompt in wanted if prompt.key not in files]:
        raise DistilleryError(f"{conditions}: no map {lost[0]}.png ({len(lost)} are missing)")
    return MapFiles(files, kind, student.kinds, size_px)


def _draw(out: Path, sampler: Sampler, prompts: Sequence[Prompt], batch_size: int) -> None:
    with bar(len(prompts), "generate", unit="image") as progress:
        for batch in batches(prompts, batch_size):
            for prompt, image in zip(batch, sampler.images(batch), strict=True):
                with publish(out / f"{prompt.key}.png") as partial:
                    partial.write_bytes(encode_png(image))
            progress.update(len(batch))
