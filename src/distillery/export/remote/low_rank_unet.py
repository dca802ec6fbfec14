"""A Stable Diffusion U-Net of which large layers are products of two thin ones.

Loads with `diffusers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` and takes the place
of the U-Net in a pipeline. Made by diffusion-distillery (Apache-2.0), which trains such models.
"""

import inspect

from diffusers import UNet2DConditionModel
from torch import nn

WEIGHTS_VARIANT = "distillery"  # of the file's name: plain classes must not take it for theirs


class LowRank(nn.Module):
    """`expand(reduce(x))` in place of a Linear or Conv2d, whose signature it takes over."""

    def __init__(self, dense, rank):
        super().__init__()
        has_bias = dense.bias is not None
        if isinstance(dense, nn.Linear):
            self.in_features, self.out_features = dense.in_features, dense.out_features
            self.reduce = nn.Linear(dense.in_features, rank, bias=False)
            self.expand = nn.Linear(rank, dense.out_features, bias=has_bias)
        else:
            self.in_channels, self.out_channels = dense.in_channels, dense.out_channels
            self.reduce = nn.Conv2d(
                dense.in_channels, rank, dense.kernel_size, dense.stride, dense.padding,
                dense.dilation, bias=False, padding_mode=dense.padding_mode,
            )  # fmt: skip
            self.expand = nn.Conv2d(rank, dense.out_channels, 1, bias=has_bias)

    def forward(self, x):
        return self.expand(self.reduce(x))


class SkippedResnet(nn.Module):
    """A residual block without its residual branch."""

    def __init__(self, block):
        super().__init__()
        self.conv_shortcut, self.scale = block.conv_shortcut, block.output_scale_factor

    def forward(self, x, *args, **kwargs):
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) / self.scale


class SkippedAttention(nn.Module):
    """An attention block that hands on its input."""

    def forward(self, x, *args, **kwargs):
        return (x,)


class LowRankUNet2DConditionModel(UNet2DConditionModel):
    """`ranks`: {layer: rank}, the layers that are products; `removed`: blocks that are gone."""

    def __init__(self, *args, ranks=None, removed=None, auto_map=None, **kwargs):
        super().__init__(*args, **kwargs)
        for name in removed or ():
            block = self.get_submodule(name)
            gone = SkippedResnet(block) if hasattr(block, "conv1") else SkippedAttention()
            self.set_submodule(name, gone)
        for name, rank in (ranks or {}).items():
            self.set_submodule(name, LowRank(self.get_submodule(name), rank))
        self.register_to_config(ranks=ranks, removed=removed, auto_map=auto_map)

    @classmethod
    def from_pretrained(cls, path, **kwargs):
        """As in diffusers; a tensor that is missing or left over is an error."""
        kwargs.update(use_safetensors=True, output_loading_info=True, variant=WEIGHTS_VARIANT)
        model, info = super().from_pretrained(path, **kwargs)
        if wrong := [*info["missing_keys"], *info["unexpected_keys"]]:
            raise ValueError(f"{path}: {len(wrong)} tensors do not fit config.json, as {wrong[0]}")
        return model

    def save_pretrained(self, save_directory, variant=None, **kwargs):
        """As in diffusers, under the file name that `from_pretrained` reads."""
        super().save_pretrained(save_directory, variant=WEIGHTS_VARIANT, **kwargs)


# diffusers reads the names of config entries from this signature.
_base = inspect.signature(UNet2DConditionModel.__init__)
_own = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
    for name in ("ranks", "removed", "auto_map")
]
LowRankUNet2DConditionModel.__init__.__signature__ = _base.replace(
    parameters=[*_base.parameters.values(), *_own]
)
