"""The page of `distillery demo`, made with Gradio (the extra `[demo]`).

In: models to choose from. Out: a page on 127.0.0.1. Nothing is sent anywhere. Not here: drawing
(`demo`).
"""

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distillery.commands.demo import Drawing, draw
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS
from distillery.families.names import label

HOST = "127.0.0.1"
NUM_FIRST = 3  # models that are picked before anyone chooses
WHITE_LINES = "White lines on black for canny and sketch, flat colours for a segmentation."


def serve(models: Sequence[str], params_file: Path, port: int) -> None:
    """Show the page until it is interrupted; raises DistilleryError where Gradio is missing."""
    show(build(models, params_file), port)


def show(page: Any, port: int, **options: Any) -> None:
    """Launch the page on this machine, with the system's own fonts: none is loaded."""
    with socket.socket() as other:
        if other.connect_ex((HOST, port)) == 0:
            raise DistilleryError(f"--port {port}: something else answers there; give another one")
    theme = _gradio().themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    page.queue().launch(server_name=HOST, server_port=port, share=False, theme=theme, **options)


def build(models: Sequence[str], params_file: Path) -> Any:
    """The page, not yet shown."""
    gradio = _gradio()
    with gradio.Blocks(title="Diffusion Distillery", analytics_enabled=False) as page:
        gradio.Markdown("# Teacher and students, side by side")
        with gradio.Row():
            with gradio.Column():
                choices = [(label(model), model) for model in models]
                picked = gradio.CheckboxGroup(choices, value=models[:NUM_FIRST], label="Models")
                prompt = gradio.Textbox(label="Prompt", value="a red circle", elem_id="prompt")
                steps = gradio.Slider(1, 100, value=20, step=1, label="Steps")
                seed = gradio.Number(value=0, precision=0, label="Seed of the noise")
                go = gradio.Button("Draw", variant="primary", elem_id="go")
            with gradio.Column():
                kind = gradio.Radio(list(KINDS), value="canny", label="Kind of the map")
                pad = gradio.ImageEditor(label=f"Map: draw or upload. {WHITE_LINES}", type="numpy")
        shown = gradio.Gallery(label="Images", columns=4, elem_id="shown", object_fit="contain")
        inputs = [picked, prompt, kind, pad, steps, seed]
        go.click(_answer(params_file, gradio.Error), inputs, shown)
    return page


def _gradio() -> Any:
    try:
        import gradio
    except ImportError:
        raise DistilleryError(
            "the demo needs Gradio; pip install -c constraints.txt -e '.[demo]'"
        ) from None
    return gradio


def _answer(params_file: Path, complain: type[Exception]) -> Callable[..., Iterator[list]]:
    """What a click does: images come as they are drawn; a user's error is a line on the page."""

    def answer(
        picked: list[str], prompt: str, kind: str, pad: dict | None, steps: float, seed: float
    ) -> Iterator[list]:
        done: list[Drawing] = []
        options = {"kind": kind, "steps": int(steps), "seed": int(seed)}
        try:
            for drawing in draw(
                picked, prompt, params_file=params_file, drawn=drawn_map(pad), **options
            ):
                done.append(drawing)
                yield [(one.image, one.caption) for one in done]
        except DistilleryError as error:
            raise complain(str(error)) from None

    return answer


def drawn_map(pad: dict[str, Any] | None) -> np.ndarray | None:
    """uint8 [H, W, 3] on black of what an image editor holds; None for an empty one."""
    image = (pad or {}).get("composite")
    if image is None or not image.any():
        return None
    image = image.astype(np.float32)
    if image.shape[-1] == 4:
        image = image[..., :3] * image[..., 3:] / 255
    return image.round().astype(np.uint8) if image.any() else None
