"""The views of a teacher cache beside `base`: what each asks the teacher.

A view is one function (teacher, batch, noisy latents) -> native output [n, C, h, w]; a further
kind of view is a further entry in `VIEWS`.
"""

import dataclasses
from collections.abc import Callable

from torch import Tensor

from distillery.errors import DistilleryError
from distillery.teacher.load import Teacher, encode_prompts
from distillery.train.batch import Batch
from distillery.train.objectives import online_output

View = Callable[[Batch, Tensor], Tensor]


def _cond(teacher: Teacher) -> View:
    """The output for the record's caption."""
    return online_output(teacher.unet)


def _uncond(teacher: Teacher) -> View:
    """The output for the empty caption, the other half of classifier-free guidance."""
    empty = encode_prompts(teacher, [""])
    ask = online_output(teacher.unet)

    def output(batch: Batch, noisy: Tensor) -> Tensor:
        text = empty.expand(len(batch.keys), -1, -1)
        return ask(dataclasses.replace(batch, text=text), noisy)

    return output


VIEWS: dict[str, Callable[[Teacher], View]] = {"cond": _cond, "uncond": _uncond}


def open_view(name: str, teacher: Teacher) -> View:
    """The function of a view; raises DistilleryError for an unknown name."""
    if name not in VIEWS:
        raise DistilleryError(f"--view {name}: unknown; one of base, {', '.join(VIEWS)}")
    return VIEWS[name](teacher)
