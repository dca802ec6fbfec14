"""How far a student ControlNet's outputs are from its teacher's, layer by layer.

In: the outputs of both, a list of [n, C, h, w] each, one per place where the U-Net takes a
residual. Out: one squared distance per output, both sides normalised:
    mean | (A_teacher - mu) / sigma - (A_student - mu) / sigma |^2
The whole loss is the mean over outputs. No gradient goes through mu and sigma. Not here: the
models, the terms that compare the U-Net's outputs.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from distillery.diffusion.processes import mean_over_processes

Stats = Literal["teacher", "own"]
Axes = Literal["sample", "layer_batch", "channel", "instance", "running"]
SIGMA_FLOOR = 1e-4
MOMENTUM = 0.1  # of running statistics, as in batch normalisation (Ioffe & Szegedy 2015)
_OVER = {"sample": (1, 2, 3), "layer_batch": (0, 1, 2, 3), "channel": (0, 2, 3), "instance": (2, 3)}
_RUNNING = "layerwise_running"


def moments(values: Tensor, axes: Axes) -> tuple[Tensor, Tensor]:
    """Mean and variance of [n, C, h, w] over `axes`, detached, of a shape that broadcasts.

    sample       one pair per sample, over (C, h, w)
    layer_batch  one pair for all
    channel      one pair per channel, over (n, h, w)
    instance     one pair per sample and channel, over (h, w)
    running      as layer_batch; `Layerwise` averages it over steps

    Those over n are of the samples of all processes, in training.
    """
    over = _OVER["layer_batch" if axes == "running" else axes]
    variance, mean = torch.var_mean(_wide(values.detach()), dim=over, keepdim=True, correction=0)
    if 0 not in over:
        return mean, variance
    overall = mean_over_processes(mean)
    return overall, mean_over_processes(variance + (mean - overall).square())


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class Layerwise:
    """The distance of every output; `student` is the module that is trained.

    `stats` says whose statistics normalise the student's outputs: with `own` a student with a
    wrong gain is at distance 0 although residuals are added to the U-Net's, so `teacher` is the
    default of the presets. With `running` they are buffers of `student`, saved with a checkpoint
    and not with the model; they move in training only.
    """

    def __init__(self, student: nn.Module, num_outputs: int, stats: Stats, axes: Axes) -> None:
        self._student, self._stats, self._axes = student, stats, axes
        if axes == "running":  # (whose, output, (updates, mean, variance))
            student.register_buffer(_RUNNING, torch.zeros(2, num_outputs, 3), persistent=False)

    def distances(self, teacher: Sequence[Tensor], student: Sequence[Tensor]) -> list[Tensor]:
        """One scalar per output, in their order; ValueError if there are not equally many."""
        pairs = zip(teacher, student, strict=True)
        return [self._distance(index, theirs, mine) for index, (theirs, mine) in enumerate(pairs)]

    def _distance(self, index: int, teacher: Tensor, student: Tensor) -> Tensor:
        theirs, mine = _wide(teacher.detach()), _wide(student)
        mean, sigma = self._statistics(0, index, theirs)
        wanted = (theirs - mean) / sigma
        if self._stats == "own":
            mean, sigma = self._statistics(1, index, mine)
        return (wanted - (mine - mean) / sigma).square().mean()

    def _statistics(self, side: int, index: int, values: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = moments(values, self._axes)
        if self._axes == "running":
            mean, variance = self._average(side, index, mean, variance)
        return mean, variance.sqrt().clamp(min=SIGMA_FLOOR)

    def _average(
        self, side: int, index: int, mean: Tensor, variance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The running pair, moved towards this one in training; before the first move, this one."""
        running = getattr(self._student, _RUNNING)[side, index]
        is_first = not running[0]
        if torch.is_grad_enabled():
            step = torch.stack([mean, variance]).view(2) - running[1:]
            running[1:] += step if is_first else MOMENTUM * step
            running[0] += 1
        elif is_first:
            return mean, variance
        return running[1].clone(), running[2].clone()
