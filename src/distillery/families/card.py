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

from distillery.families import FAMILIES

__computes__ = False  # texts, not part of any stage's code

CARD = "README.md"
SCENES = "scenes"
OWN_CLASS = (
    "Weights that end in `.distillery.safetensors` load with that code only: plain "
    "`UNet2DConditionModel` and `ControlNetModel` end with an error, as they would draw at random "
    "what they miss. For other tools: `distillery export`."
)
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
    words: dict[str, str] = {}
    for name, value in sorted(settings.items()):
        if isinstance(value, Mapping):
            words |= flat(value, f"{start}{name}.")
        elif isinstance(value, (list, tuple)):
            words[f"{start}{name}"] = ", ".join(map(str, value))
        else:
            words[f"{start}{name}"] = "none" if value is None else str(value)
    return words


def readme(
    family: str,
    variant: str,
    source: str,
    data: CachedData,
    settings: Mapping[str, Any],
    seeds: Sequence[int],
) -> str:
    """The README.md of the folder `models/<family>/<variant>`."""
    texts = FAMILIES[family].texts
    name = f"{family}/{variant}"
    parts = [
        front_matter(family, source),
        f"# {texts.title} (`{name}`)",
        texts.lede,
        f"Measured values, with n, seeds and intervals: `reports/cards/{name}.md`, which the stage "
        "`report` writes.",
        f"## Use\n\nIn the project's folder:\n\n```python\n{snippet(name, settings)}```",
        OWN_CLASS,
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


def snippet(model: str, settings: Mapping[str, Any]) -> str:
    """Python that draws `image.png` with the model `models/<model>`, in a project's folder.

    `settings` are those of its `training.json`; of a whole student its `backbone`, `guidance` and
    `controlnet`, and under `lora` the settings of its guidance student.
    """
    return FAMILIES[model.partition("/")[0]].texts.snippet(model, settings)
