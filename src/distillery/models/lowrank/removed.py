"""Residual and attention blocks of a U-Net that are gone: in their place stands their skip.

In: a U-Net and names of its blocks. Out: the same with those blocks replaced. A removed residual
block hands on its input, through its 1 x 1 shortcut where it changes the number of channels; a
removed attention block hands on its input. So every other layer sees the shapes it always saw, and
the residuals of a ControlNet fit. Which blocks are worth their time is `budgets`'
business. Source: block removal as in BK-SDM (Kim et al. 2023) and LAPTOP-Diff (Zhang et al. 2024).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from distillery.core.errors import DistilleryError

SHORTCUT = "conv_shortcut"


class RemovedResnet(nn.Module):
    """A residual block without its residual branch: (n, in, h, w) -> (n, out, h, w)."""

    def __init__(self, block: ResnetBlock2D) -> None:
        super().__init__()
        self.in_channels, self.out_channels = block.in_channels, block.out_channels
        self.output_scale_factor = block.output_scale_factor
        self.conv_shortcut = block.conv_shortcut

    def forward(self, input_tensor: Tensor, temb: Tensor | None = None, *args: Any) -> Tensor:
        output = input_tensor
        if self.conv_shortcut is not None:
            output = self.conv_shortcut(output)
        return output if self.output_scale_factor == 1 else output / self.output_scale_factor


class RemovedAttention(nn.Module):
    """An attention block without attention; takes what `Transformer2DModel` takes."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor]:
        return (hidden_states,)


def removable_blocks(unet: nn.Module) -> dict[str, nn.Module]:
    """Residual and attention blocks by name that can be removed, in the order of definition.

    Not among them are residual blocks that change the resolution: their skip does not keep it.
    """
    return {n: m for n, m in unet.named_modules() if n.count(".") >= 2 and _is_removable(m)}


def _is_removable(module: nn.Module) -> bool:
    if isinstance(module, ResnetBlock2D):
        return not (module.up or module.down)
    return isinstance(module, Transformer2DModel)


def removed_in(config: Mapping) -> tuple[str, ...]:
    """The removed blocks of a U-Net with this configuration; none for a plain one."""
    return tuple(config.get("removed") or ())


def skip_of(block: nn.Module) -> nn.Module:
    """What stands in the place of a removed block; it shares the shortcut with `block`."""
    return RemovedResnet(block) if isinstance(block, ResnetBlock2D) else RemovedAttention()


def remove_blocks(unet: nn.Module, names: Iterable[str]) -> None:
    """Replace blocks of `unet` by their skips, in place; raises DistilleryError for other names."""
    candidates = removable_blocks(unet)
    for name in names:
        if name not in candidates:
            raise DistilleryError(
                f"removed: {name!r} is no residual or attention block that a skip can stand for; "
                f"the U-Net has {len(candidates)}, such as {next(iter(candidates), 'none')}"
            )
        unet.set_submodule(name, skip_of(candidates[name]))


def is_gone(layer: str, removed: Iterable[str]) -> bool:
    """Whether a layer or parameter belongs to the removed part of a removed block."""
    return any(layer.startswith(f"{b}.") and layer[len(b) + 1 :].split(".")[0] != SHORTCUT
               for b in removed)  # fmt: skip


def layers_kept(layers: Mapping[str, Any], removed: Iterable[str]) -> dict[str, Any]:
    """The entries of layers or parameters that no removed block takes with it."""
    removed = tuple(removed)
    return {name: value for name, value in layers.items() if not is_gone(name, removed)}


def check_no_removed(config: Mapping, what: str) -> None:
    """Raise DistilleryError if blocks are gone, for what needs all of them."""
    if removed := removed_in(config):
        raise DistilleryError(
            f"{what}: {len(removed)} blocks are removed, first {removed[0]}, and a dense U-Net "
            "has no place for a block that is not there; use the student as it "
            "is, elsewhere by `distillery export --to hub`"
        )
