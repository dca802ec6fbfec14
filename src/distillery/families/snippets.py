"""Python for a model's card: a pipeline with the student in it, and a call.

In: lines that make the parts, names of the pipeline's arguments. Out: a program that runs in a
project's folder. Not here: what a family's program consists of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

__computes__ = False  # texts, not part of any stage's code

EDGES = (
    "size_px = pipeline.unet.config.sample_size * pipeline.vae_scale_factor\n"
    "edges = torch.zeros(1, 3, size_px, size_px)  # your map, in [0, 1]\n"
    "edges[..., size_px // 4, size_px // 4 : 3 * size_px // 4] = 1"
)
ONCE = "guidance_scale=1"
_IMPORTS = {
    "Path(": "from pathlib import Path",
    "torch.": "import torch",
    "ControlAdapter.": "from distillery.models.control_adapter import ControlAdapter",
    "load_guidance_unet(": "from distillery.models.lora.files import load_guidance_unet",
    "load_unet(": "from distillery.models.load import load_unet",
    "load_controlnet(": "from distillery.models.load import load_controlnet",
}


def program(
    made: Sequence[str], components: str, prepared: str = "", arguments: str = "", loaded: str = ""
) -> str:
    """Imports, the parts `made`, the pipeline with its `components`, a call with `arguments`.

    `loaded` is a line between pipeline and call, `prepared` lines that make a condition map.
    """
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


def unet_of(backbone: str) -> list[str]:
    """The U-Net that a variant builds on; none for the pipeline's own."""
    return [] if backbone == "teacher" else [f'unet = load_unet(Path("models/{backbone}"))']


def guidance_unet(model: str, backbone: str, settings: Mapping[str, Any]) -> str:
    """A guidance student on its backbone; one with a w-embedding is told its highest scale."""
    place = "models/teacher/unet" if backbone == "teacher" else f"models/{backbone}"
    is_told = settings["scale_low"] != settings["scale_high"] and settings["objective"] == "teacher"
    scale = f", scale={settings['scale_high']}" if is_told else ""
    return f'unet = load_guidance_unet("models/{model}", load_unet(Path("{place}")){scale})'


def _place(line: str) -> tuple[bool, bool, str]:
    """Python's own modules first, this project's last."""
    return "distillery" in line, "pathlib" not in line, line
