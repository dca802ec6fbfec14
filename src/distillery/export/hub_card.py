"""The card of a hub folder: its header for the hub's search, how to load, how it was made.

In: what is known of a student, its metrics file. Out: Markdown with the header that
`huggingface_hub.ModelCardData` writes. Nothing here depends on time or place.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import ControlNetModel, ModelMixin
from huggingface_hub import EvalResult, ModelCardData

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.models.lora.layers import lora_layers
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.student_controlnet import StudentControlNet

_LEFT_OUT = ("Use", "Base model")
_OWN = (LowRankUNet2DConditionModel, StudentControlNet)
_TAGS = ("diffusers", "stable-diffusion", "distillation")


@dataclass(frozen=True)
class HubCard:
    """What a card says beside the models themselves.

    `name` is `<family>/<variant>`, `results` are metrics by name, `about` further sections.
    """

    name: str
    base_model: str
    license: str
    guidance_scale: float | None = None
    datasets: Sequence[str] = ()
    results: Mapping[str, float] | None = None
    about: str = ""


def results_of(metrics: Path) -> dict[str, float]:
    """{metric: value} of a file that `evaluate` wrote, without those that have no value."""
    remedy = "give the metrics of one model, such as metrics/unet/elr.json"
    try:
        values = read_json(metrics, remedy=remedy)["metrics"]
        found = {name: entry["value"] for name, entry in sorted(values.items())}
    except (KeyError, TypeError, AttributeError):
        found = {"/": 0.0}
    if any("/" in name for name in found):  # the profile names models
        raise DistilleryError(f"{metrics}: no metrics of a model; {remedy}")
    return found


def sections_of(readme: str) -> str:
    """The sections of a model folder's own card but its header, title and code."""
    parts = re.split(r"^## ", readme, flags=re.M)[1:]
    kept = [part for part in parts if part.partition("\n")[0].strip() not in _LEFT_OUT]
    return "".join(f"## {part}" for part in kept).strip()


def card_text(models: Mapping[str, ModelMixin], card: HubCard) -> str:
    """The card of `models` by subfolder."""
    header = _header(models, card).to_yaml()
    parts = [
        f"---\n{header}\n---",
        f"# {card.name}",
        f"A student of `{card.base_model}`, made by diffusion-distillery.",
        f"## Use\n\n```python\n{snippet(models, card)}```",
        *([which] if (which := _which_class(models)) else []),
        card.about,
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _header(models: Mapping[str, ModelMixin], card: HubCard) -> ModelCardData:
    only_control = all(isinstance(model, ControlNetModel) for model in models.values())
    is_adapter = only_control or any(lora_layers(model) for model in models.values())
    task = "image-to-image" if only_control else "text-to-image"
    data = {
        "base_model": card.base_model,
        "base_model_relation": "adapter" if is_adapter else "finetune",
        "pipeline_tag": task,
        "library_name": "diffusers",
        "license": card.license,
        "datasets": list(card.datasets) or None,
        "tags": [*_TAGS, card.name.partition("/")[0]],
    }
    if card.results:
        data |= {"model_name": card.name, "eval_results": _evaluations(task, card)}
    return ModelCardData(**data)


def _evaluations(task: str, card: HubCard) -> list[EvalResult]:
    dataset = card.datasets[0] if card.datasets else "test-split"
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=f"test split of {dataset}" if card.datasets else "test split",
            metric_type=name,
            metric_value=value,
        )
        for name, value in card.results.items()
    ]


def _which_class(models: Mapping[str, ModelMixin]) -> str:
    if not any(isinstance(model, _OWN) for model in models.values()):
        return ""
    return (
        "The weights have a file name that plain `UNet2DConditionModel` and `ControlNetModel` do "
        "not look for, as they would draw at random what they miss. `trust_remote_code=True` runs "
        "the Python file beside the weights, which needs torch and diffusers only."
    )


def snippet(models: Mapping[str, ModelMixin], card: HubCard) -> str:
    """Python that loads the folder into the base model's pipeline; REPO stands for its address."""
    loras = [model for model in models.values() if lora_layers(model)]
    parts = {place: model for place, model in models.items() if not lora_layers(model)}
    is_control = any(isinstance(model, ControlNetModel) for model in parts.values())
    pipeline = f"StableDiffusion{'ControlNet' if is_control else ''}Pipeline"
    lines = [_loaded(place, model) for place, model in parts.items()]
    given = "".join(f", {part}={part}" for part in map(_part, parts.values()))
    lines.append(f'pipeline = {pipeline}.from_pretrained("{card.base_model}"{given})')
    lines += ['pipeline.load_lora_weights("REPO")' for _ in loras]
    scale = "" if card.guidance_scale is None else f", guidance_scale={card.guidance_scale:g}"
    image = ", image=your_map" if is_control else ""
    lines.append(f'pipeline("a red circle"{image}{scale}).images[0].save("image.png")')
    kinds = sorted({pipeline, *map(_loading_class, parts.values())})
    return f"from diffusers import {', '.join(kinds)}\n\n" + "\n".join(lines) + "\n"


def _loaded(place: str, model: ModelMixin) -> str:
    where = "" if place == "." else f', subfolder="{place}"'
    trust = ", trust_remote_code=True" if isinstance(model, _OWN) else ""
    return f'{_part(model)} = {_loading_class(model)}.from_pretrained("REPO"{where}{trust})'


def _part(model: ModelMixin) -> str:
    return "controlnet" if isinstance(model, ControlNetModel) else "unet"


def _loading_class(model: ModelMixin) -> str:
    return "AutoModel" if isinstance(model, _OWN) else type(model).__name__
