"""Weights of a student ControlNet from a wider and deeper teacher's.

In: a student with random weights and its teacher, both with diffusers' parameter names. Out: the
student with the teacher's layers that it has, thinned out to its widths. Its zero convolutions and
modulations stay as they are, so it still changes nothing.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distillery.models.hadamard.conv import HadamardConv2d

_KEPT = ("controlnet_down_blocks", "controlnet_mid_block")


@torch.no_grad()
def start_from_teacher(student: nn.Module, teacher: nn.Module, num_sweeps: int) -> None:
    """Copy what the student shares with `teacher`, in place.

    Student channel k of C takes the teacher's channel floor(k * C_teacher / C): an even selection
    keeps norm groups, heads, the two halves of a gated layer and the frequencies of the time
    embedding where they are. Weights are multiplied by sqrt(fan_in_teacher / fan_in), which keeps
    the variance of what a layer puts out. Of each block the first layers are taken; the hint
    network is the teacher's but for its last layer's width. Hadamard convolutions are fitted to
    what they replace. A layer that the teacher lacks keeps its random values.
    """
    state = teacher.state_dict()
    for name, module in student.named_modules():
        if name.startswith(_KEPT):
            continue
        if isinstance(module, HadamardConv2d):
            _fit_layer(name, module, state, num_sweeps)
            continue
        for key, parameter in module.named_parameters(prefix=name, recurse=False):
            if key in state and state[key].ndim == parameter.ndim:
                parameter.copy_(thinned(state[key], parameter.shape))


def thinned(weight: Tensor, shape: torch.Size) -> Tensor:
    """An even selection of `weight` along every dimension, scaled for the inputs left out.

    Returns `weight` itself if the shapes are equal. Dimensions may grow too: channels repeat.
    """
    for dim, (size, wanted) in enumerate(zip(weight.shape, shape, strict=True)):
        if size != wanted:
            chosen = torch.arange(wanted, device=weight.device) * size // wanted
            weight = weight.index_select(dim, chosen)
            if dim == 1:
                weight = weight * math.sqrt(size / wanted)
    return weight


def _fit_layer(
    name: str, layer: HadamardConv2d, state: Mapping[str, Tensor], num_sweeps: int
) -> None:
    if f"{name}.weight" not in state:
        return
    shape = torch.Size((layer.out_channels, layer.in_channels, *layer.kernel_size))
    layer.fit_to(thinned(state[f"{name}.weight"], shape), num_sweeps)
    if layer.bias is not None and f"{name}.bias" in state:
        layer.bias.copy_(thinned(state[f"{name}.bias"], layer.bias.shape))
