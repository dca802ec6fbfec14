"""`distillery generate`: prompts in, images by any model of this project out.

In: a model's folder or its name in a project, prompts, for a controlled model condition maps. Out:
a folder of PNG files and `prompts.json`, which `distillery evaluate` takes as they are. A call that
was interrupted goes on where it stopped; images of other settings are never mixed in. Not
here: the pipeline's own samples of the test prompts (`stages.generate`).
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distillery.commands.amounts import counted
from distillery.commands.controls import Given, controlled, map_files, of_model, read_given
from distillery.commands.find_model import choose
from distillery.core.artifacts import content_of, read_json, require_outside, write_json
from distillery.core.device import claim_device
from distillery.core.errors import DistilleryError
from distillery.core.precision import torch_dtype
from distillery.core.progress import bar, counting
from distillery.core.publishing import publish
from distillery.data.image_folders import load_prompts
from distillery.families.load import Folders, Student, attach, load_student
from distillery.sampling.sampler import Sampler
from distillery.sampling.samples import AND, Prompt, batches, encode_png
from distillery.teacher.load import Teacher, load_teacher

PROMPTS = "prompts.json"
SETTINGS = "generate.json"
_ANOTHER = "give another --out"


def generate(
    model: str,
    out: Path,
    *,
    params_file: Path,
    prompts: Sequence[str] = (),
    prompts_file: Path | None = None,
    conditions: Sequence[str] = (),
    kind: str | None = None,
    seed: int = 0,
    negative: str = "",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Draw one image per prompt into the folder `out`.

    Returns {"images", "drawn", "out", "sampling"}: counts, the folder, what was drawn with.

    The noise of an image follows from `seed` and its name, so that models can be compared image by
    image. `conditions` are folders of maps as `controls.read_given` takes them; `kind` says what
    the maps in a folder without one are, a model of one kind need not be told.
    `negative` is the prompt that all images are led away from, "" for none.
    `overrides` replace values of the params file, or the model's own: `num_inference_steps`,
    `guidance_scale`, `batch_size`, `resolution_px`, `device`.

    Raises DistilleryError for a model, a prompt or a map that is not there, for a negative prompt
    that the model can't be told, and where `out` holds images of other settings.
    """
    wanted = _prompts(prompts, prompts_file)
    require_outside(out)
    given = _checked(overrides or {})
    choice = choose(model, params_file)
    settings = {**choice.settings, **given}
    device, dtype = claim_device(settings.pop("device")), torch_dtype(settings.pop("dtype"))
    batch_size, runtime = settings.pop("batch_size"), settings.pop("runtime")
    folders = choice.told(settings["guidance_scale"])
    student = load_student(choice.name, folders, device, dtype)
    if said := student.refuses(given.get("guidance_scale", 1.0)):
        print(f"{choice.name}: {said}", file=sys.stderr)
    if negative:
        _require_negative(choice.name, student, settings["guidance_scale"])
    maps = of_model(choice.name, student, read_given(conditions, kind), folders.teacher)
    kinds, scales = AND.join(one.kind for one in maps), [one.scale for one in maps]
    is_scaled = any(scale != 1 for scale in scales)
    recorded = {
        "model": choice.name, "seed": seed, "kind": kinds, "negative": negative or None, **settings,
        "scales": scales if is_scaled else None, "contents": _contents(folders, maps),
    }  # fmt: skip
    todo = _undrawn(out, recorded, wanted)
    student = controlled(student, maps, folders)
    files = map_files(student, maps, wanted, settings["resolution_px"])
    teacher = load_teacher(folders.teacher, device, dtype)
    _say_cut(teacher, [*(prompt.caption for prompt in todo), negative])
    sampler = Sampler(teacher, noise_seed=seed, runtime=runtime, negative=negative, **settings)
    sampler = attach(sampler, student, files)
    _record(out, recorded, wanted)
    _draw(out, sampler, [replace(p, condition=kinds) for p in todo], batch_size)
    sampling = {**settings, "guidance_scale": sampler.guidance_scale}
    return {"images": len(wanted), "drawn": len(todo), "out": str(out), "sampling": sampling}


def as_text(drawn: Mapping[str, Any]) -> str:
    """What was drawn, and with which settings."""
    sampling = drawn["sampling"]
    return (
        f"{counted(drawn['images'], 'image')} in {drawn['out']}, {drawn['drawn']} drawn now: "
        f"{counted(sampling['num_inference_steps'], 'step')}, guidance scale "
        f"{sampling['guidance_scale']:g}, {sampling['resolution_px']} px"
    )


def _checked(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What is given of them; held to what params.yaml allows."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if (device := given.get("device", "cpu")) not in ("cpu", "cuda"):
        raise DistilleryError(f"--device {device}: use cpu or cuda")
    if (side := given.get("resolution_px", 8)) % 8:
        raise DistilleryError(f"--size {side}: use a multiple of 8")
    if not math.isfinite(scale := given.get("guidance_scale", 1.0)):
        raise DistilleryError(f"--guidance-scale {scale}: use a number, such as 7.5")
    return given


def _require_negative(model: str, student: Student, guidance_scale: float) -> None:
    """Guidance leads away from a negative prompt; one evaluation does where it was taught to."""
    if student.is_guided and guidance_scale <= 1:
        raise DistilleryError(f"--negative: {model} needs --guidance-scale above 1 for it")
    if not (student.is_guided or student.takes_negative):
        raise DistilleryError(
            f"--negative: {model} draws in one evaluation and was not taught negative prompts; "
            "train it with distill_guidance.guidance.negative: true, or draw with a guided model"
        )


def _say_cut(teacher: Teacher, captions: Sequence[str]) -> None:
    """Say which prompts the text encoder reads the beginning of."""
    most = min(  # as encode_prompts cuts them
        teacher.tokenizer.model_max_length, teacher.text_encoder.config.max_position_embeddings
    )
    tokens = teacher.tokenizer(list(captions), verbose=False).input_ids
    if long := [text for text, ids in zip(captions, tokens, strict=True) if len(ids) > most]:
        print(
            f"generate: {counted(len(long), 'prompt')} longer than the {most} tokens that the "
            f"teacher reads; the rest is left out, first of {long[0][:40]!r}",
            file=sys.stderr,
        )


def _contents(folders: Folders, maps: Sequence[Given]) -> dict[str, str]:
    """Short hashes of everything that the images depend on."""
    parts = {"teacher": folders.teacher, "model": folders.model, "backbone": folders.backbone,
             "controlnet": folders.controlnet}  # fmt: skip
    names = [f"conditions_{one.kind}" if len(maps) > 1 else "conditions" for one in maps]
    parts |= dict(zip(names, (one.folder for one in maps), strict=True))
    return {name: content_of(path)[:16] for name, path in parts.items() if path is not None}


def _prompts(texts: Sequence[str], file: Path | None) -> list[Prompt]:
    """Prompts with their names in the file, or numbered those of the command line."""
    if bool(texts) == bool(file):
        raise DistilleryError("no prompts, or two kinds; give --prompt TEXT or --prompts FILE")
    named = load_prompts(file) if file else {f"{n:05d}": text for n, text in enumerate(texts)}
    return [Prompt(name, text) for name, text in named.items()]


def _undrawn(out: Path, settings: dict[str, Any], wanted: Sequence[Prompt]) -> list[Prompt]:
    """The prompts without an image in `out`; raises DistilleryError if it holds other images."""
    is_ours = (out / SETTINGS).is_file()
    if not is_ours and out.is_dir() and (others := sorted(out.iterdir())):
        raise DistilleryError(
            f"{out}: holds files that this command did not draw, first {others[0].name}; {_ANOTHER}"
        )
    known = read_json(out / SETTINGS, remedy=_ANOTHER) if is_ours else settings
    for name, value in settings.items():
        if known.get(name) != value:
            raise DistilleryError(
                f"{out}: holds images of {name} {_said(known.get(name))}, not {_said(value)}; "
                f"{_ANOTHER}"
            )
    captions, undrawn = _captions(out), []
    for prompt in wanted:
        image = out / f"{prompt.key}.png"
        if not image.is_file():
            undrawn.append(prompt)
        elif prompt.key not in captions:
            raise DistilleryError(f"{image}: was not drawn by this command; {_ANOTHER}")
        if captions.get(prompt.key, prompt.caption) != prompt.caption:
            raise DistilleryError(
                f"{image}: of another prompt, {captions[prompt.key]!r}; {_ANOTHER}"
            )
    return undrawn


def _said(value: Any) -> Any:
    return "none" if value == "" else value


def _record(out: Path, settings: dict[str, Any], wanted: Sequence[Prompt]) -> None:
    """Write down what `out` holds, before it does."""
    write_json(out / SETTINGS, settings)
    write_json(out / PROMPTS, _captions(out) | {p.key: p.caption for p in wanted})


def _captions(out: Path) -> dict[str, str]:
    is_there = (out / PROMPTS).is_file()
    return read_json(out / PROMPTS, remedy=_ANOTHER) if is_there else {}


def _draw(out: Path, sampler: Sampler, prompts: Sequence[Prompt], batch_size: int) -> None:
    """Draw and write; the bar counts denoising steps, so that it soon knows how long it takes."""
    steps = sampler.num_inference_steps
    print(
        f"generate: {counted(len(prompts), 'image')} of {sampler.resolution_px} px in "
        f"{counted(steps, 'step')} on "
        f"{sampler.teacher.unet.device.type}",
        file=sys.stderr,
    )
    with bar(len(prompts) * steps, "generate", unit="step") as progress, counting(progress):
        for batch in batches(prompts, batch_size):
            for prompt, image in zip(batch, sampler.images(batch), strict=True):
                with publish(out / f"{prompt.key}.png") as partial:
                    partial.write_bytes(encode_png(image))
