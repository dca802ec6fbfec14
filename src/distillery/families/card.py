"""What every model card says, whoever writes it: the README.md of a model folder and the report's.

In: a family, a variant, the settings in its `training.json`, the teacher's source. Out: Markdown
and its pieces. A training cannot know metrics and its folder never changes afterwards, so that card
points to the report's (`report.cards`), which has them. Nothing here depends on time, place or
measurements. Neither torch nor jinja2 is imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__computes__ = False  # texts, not part of any stage's code

CARD = "README.md"
SCENES = "scenes"
# Title and a sentence or two.
FAMILY_TEXTS = {
    "whole": (
        "The whole student",
        "Everything together in one pipeline: the low-rank U-Net, guidance distilled into a LoRA "
        "on top of it, and a distilled ControlNet, against the guided teacher with its full "
        "ControlNet.",
    ),
    "unet": (
        "A low-rank U-Net",
        "Every large layer of the U-Net becomes a product of two thin ones, started from its SVD "
        "and distilled from the teacher's cached outputs.",
    ),
    "control": (
        "A control adapter on a frozen U-Net",
        "One adapter takes Canny edges, sketches and segmentations. Its low-rank encoder is tuned "
        "by shared Kronecker products, while the backbone stays frozen.",
    ),
    "controlnet": (
        "Small ControlNets",
        "Students of the teacher's Canny ControlNet, taught by its images and by each of its "
        "residuals, beside the unchanged U-Net.",
    ),
    "guidance": (
        "Guidance in one evaluation",
        "Classifier-free guidance asks the U-Net twice per step. The student learns the guided "
        "answer and is asked once; as a LoRA it needs no second copy of the weights.",
    ),
}
LIMITS = (
    "The student knows what its teacher knows, at best, and inherits its biases.",
    "Prompts and images unlike the training data were neither learned nor tested.",
)


@dataclass(frozen=True)
class CachedData:
    """What a training read of the teacher's cache; `content` is the hash of its records."""

    num_train: int
    num_val: int
    num_slots: int
    resolution_px: int
    content: str


def base_model(source: str) -> str:
    """The teacher as a card names it: a hub id or `scenes` as it is, of a path its last part."""
    is_place = Path(source).is_absolute() or source.startswith(("~", "."))
    return Path(source).name if is_place else source


def front_matter(family: str, source: str) -> str:
    """Hugging Face's YAML block, with its fences."""
    values = {
        "library_name": "diffusers",
        "base_model": base_model(source),
        "tags": ["diffusers", "text-to-image", "distillation", family],
        "license": "apache-2.0" if source == SCENES else "other",
    }
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return f"---\n{text}---"


def licence(source: str) -> str:
    """A sentence about who may do what."""
    return (
        f"That of the base model, {base_model(source)}, and of the data it was trained on; the "
        "code is Apache-2.0."
    )


def flat(settings: Mapping[str, Any], start: str = "") -> dict[str, str]:
    """Nested settings as sorted dotted names with values in words."""
    found: dict[str, str] = {}
    for name, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            found |= flat(value, f"{start}{name}.")
        elif isinstance(value, (list, tuple)):
            found[f"{start}{name}"] = ", ".join(map(str, value))
        else:
            found[f"{start}{name}"] = "none" if value is None else str(value)
    return found


def readme(
    family: str,
    variant: str,
    source: str,
    data: CachedData,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
) -> str:
    """The README.md of the folder `models/<family>/<variant>`."""
    title, lede = FAMILY_TEXTS[family]
    name = f"{family}/{variant}"
    parts = [
        front_matter(family, source),
        f"# {title} (`{name}`)",
        lede,
        f"Measured values, with n, seeds and intervals: `reports/cards/{name}.md`, which the stage "
        "`report` writes.",
        f"## Use\n\nIn the project's folder:\n\n```python\n{snippet(family, name, settings)}```",
        f"## Base model\n\n{base_model(source)}, in `models/teacher`.",
        f"## Data\n\n{_about(data)}",
        "## Training\n\n" + _listed({**flat(settings), "seeds": _seeds(seeds)}),
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
        f"## Licence\n\n{licence(source)}",
    ]
    return "\n\n".join(parts) + "\n"


def _about(data: CachedData) -> str:
    return (
        f"{data.num_train:,} training images and {data.num_val:,} for validation at "
        f"{data.resolution_px} px, each at {data.num_slots} noise levels, from the teacher's cache "
        f"`{data.content[:16]}`. What was filtered out, with counts, is in the report's card."
    )


def _listed(values: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in values.items())


def _seeds(seeds: Sequence[int]) -> str:
    first, *others = seeds
    beside = ", ".join(f"{seed} in `seed-{seed}/`" for seed in others)
    return f"{first} at the top" + (f", {beside}" if beside else "")


def snippet(family: str, name: str, settings: Mapping[str, Any]) -> str:
    """Python that draws `image.png` with the model `models/<name>`, in a project's folder.

    `settings` are those of its `training.json`; of a whole student its `backbone`, `guidance` and
    `controlnet`, and under `lora` the settings of its guidance student.
    """
    if family == "whole":
        return _whole(settings)
    model = f"models/{name}"
    backbone = settings.get("backbone", "teacher")
    if family == "unet":
        return _program([f'unet = load_unet(Path("{model}"))'], "unet=unet")
    if family == "guidance":
        return _guided(model, backbone, settings)
    if family == "controlnet":
        made = [f'controlnet = load_student_controlnet(Path("{model}"))']
        return _program(made, "controlnet=controlnet", _EDGES, "image=edges")
    made = [f'controlnet = ControlAdapter.from_pretrained("{model}")', *_unet_of(backbone)]
    named = "controlnet=controlnet" + (", unet=unet" if backbone != "teacher" else "")
    hint = f"image=controlnet.stack({settings['kinds'][0]}=edges)"
    return _program(made, named, _EDGES, hint)


_EDGES = (
    "size_px = pipeline.unet.config.sample_size * pipeline.vae_scale_factor\n"
    "edges = torch.zeros(1, 3, size_px, size_px)  # your map, in [0, 1]\n"
    "edges[..., size_px // 4, size_px // 4 : 3 * size_px // 4] = 1"
)
_IMPORTS = {
    "Path(": "from pathlib import Path",
    "torch.": "import torch",
    "ControlAdapter.": "from distillery.models.control_adapter import ControlAdapter",
    "load_guidance_unet(": "from distillery.models.lora.files import load_guidance_unet",
    "load_unet(": "from distillery.sampling.sampler import load_unet",
    "load_student_controlnet(": "from distillery.families.load import load_student_controlnet",
}


def _program(
    made: Sequence[str], components: str, prepared: str = "", arguments: str = "", loaded: str = ""
) -> str:
    """Imports, the parts, the pipeline with them, a call of it."""
    kind = f"StableDiffusion{'ControlNet' if prepared else ''}Pipeline"
    comma = ", " if components else ""
    call = f'pipeline("a red circle"{f", {arguments}" if arguments else ""})'
    body = [
        *made,
        f'pipeline = {kind}.from_pretrained("models/teacher"{comma}{components})',
        *filter(None, (loaded, prepared)),
        f'{call}.images[0].save("image.png")',
    ]
    text = "\n".join(body)
    imports = [line for used, line in _IMPORTS.items() if used in text]
    imports.append(f"from diffusers import {kind}")
    return "\n".join([*sorted(imports, key=_place), "", text]) + "\n"


def _place(line: str) -> tuple[bool, bool, str]:
    """Python's own modules first, this project's last."""
    return "distillery" in line, "pathlib" not in line, line


def _unet_of(backbone: str) -> list[str]:
    """The U-Net that a variant builds on; none for the pipeline's own."""
    return [] if backbone == "teacher" else [f'unet = load_unet(Path("models/{backbone}"))']


def _guided(model: str, backbone: str, settings: Mapping[str, Any]) -> str:
    once = "guidance_scale=1" if settings["objective"] == "teacher" else ""
    if settings["update"] == "lora" and backbone == "teacher":
        return _program([], "", "", once, f'pipeline.load_lora_weights("{model}")')
    return _program([_guidance_unet(model, backbone, settings)], "unet=unet", "", once)


def _guidance_unet(model: str, backbone: str, settings: Mapping[str, Any]) -> str:
    """A guidance student on its backbone; one with a w-embedding is told its highest scale."""
    place = "models/teacher/unet" if backbone == "teacher" else f"models/{backbone}"
    is_told = settings["scale_low"] != settings["scale_high"] and settings["objective"] == "teacher"
    scale = f", scale={settings['scale_high']}" if is_told else ""
    return f'unet = load_guidance_unet("{model}", load_unet(Path("{place}")){scale})'


def _whole(parts: Mapping[str, Any]) -> str:
    """A guidance student of a low-rank U-Net beside a distilled ControlNet."""
    guidance = f"models/guidance/{parts['guidance']}"
    made = [
        _guidance_unet(guidance, parts["backbone"], parts["lora"]),
        f'controlnet = load_student_controlnet(Path("models/controlnet/{parts["controlnet"]}"))',
    ]
    once = ", guidance_scale=1" if parts["lora"]["objective"] == "teacher" else ""
    return _program(made, "unet=unet, controlnet=controlnet", _EDGES, f"image=edges{once}")
