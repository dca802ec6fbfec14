"""The low-rank student U-Net, a `diffusers` model whose config records ranks and removed blocks.

In: a U-Net configuration, `ranks` and `removed`. Out: a `UNet2DConditionModel` that saves, loads,
trains and generates as any other, and merges back into a dense one where no block is gone. Which
ranks are wise is `ranks`' business, how weights are factorised `factorise`'s, what a removed block
is `removed`'s. Source: ELR-Diffusion, Stage I.
"""

import inspect
from collections.abc import Iterable, Mapping

import torch
from accelerate import init_empty_weights

# A pipeline saved with this class loads it only if its module has the base class by this name.
from diffusers import ModelMixin, UNet2DConditionModel  # noqa: F401
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.layers import low_rank_layers, low_rank_like
from distillery.models.lowrank.removed import check_no_removed, is_gone, remove_blocks
from distillery.models.skeleton import Unfilled, without_weights
from distillery.models.strict import StrictLoading, assign_state, init_arguments


class _MatricesOnMeta(Unfilled):
    """Sends every tensor of two or more dimensions made by `torch.empty` to the meta device.

    That is how layers allocate the weights that `reset_parameters` fills, while buffers and
    parameters with computed values (`torch.ones`, `randn`, `arange`) stay real.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.empty and not isinstance(args[0], int) and len(args[0]) > 1:
            kwargs = {**kwargs, "device": "meta"}
        return super().__torch_function__(func, types, args, kwargs)


class LowRankUNet2DConditionModel(StrictLoading, UNet2DConditionModel):
    """`UNet2DConditionModel` in which each layer named in `ranks` is a product of two factors.

    Takes every argument of `UNet2DConditionModel`, `ranks`, {layer name: rank}, and `removed`,
    names of residual and attention blocks that are gone; layers that are not named stay dense.
    Values are random (see `LowRankLayer.reset_parameters`) until loaded. The dense weights of the
    named layers are never allocated, neither here nor by `from_pretrained`.
    Raises DistilleryError for a name or a rank that does not fit the architecture.
    """

    def __init__(
        self,
        *args,
        ranks: Mapping[str, int] | None = None,
        removed: Iterable[str] | None = None,
        **unet_arguments,
    ) -> None:
        ranks, removed = dict(sorted((ranks or {}).items())), sorted(set(removed or ()))
        # On meta when the caller builds a skeleton (`torch.device`, accelerate), else real.
        device = nn.Linear(1, 1, bias=False).weight.device
        with _MatricesOnMeta():
            super().__init__(*args, **unet_arguments)
            self._replace_layers(ranks, removed)
        if device.type != "meta":
            _materialise(self, device)
        self.register_to_config(ranks=ranks, removed=removed)

    def _replace_layers(self, ranks: Mapping[str, int], removed: list[str]) -> None:
        layers = dict(self.named_modules())
        remove_blocks(self, removed)
        if gone := [name for name in ranks if name in layers and is_gone(name, removed)]:
            raise DistilleryError(f"ranks: {gone[0]} is in a removed block; leave it out")
        unknown = [name for name in ranks if name not in layers]
        if unknown:
            raise DistilleryError(
                f"ranks: the U-Net has no layer {unknown[0]!r} ({len(unknown)} unknown of "
                f"{len(ranks)}); plan the ranks for this architecture"
            )
        for name, rank in ranks.items():
            self.set_submodule(name, low_rank_like(layers[name], rank, name))

    @classmethod
    def empty(
        cls, config: Mapping, ranks: Mapping[str, int], removed: Iterable[str] = ()
    ) -> "LowRankUNet2DConditionModel":
        """The architecture on the meta device, buffers real; takes milliseconds and no memory.

        Ranks and removed blocks are those given, whatever `config` says of its own.
        """
        with init_empty_weights():
            return cls(**unet_arguments(config), ranks=ranks, removed=removed)

    @torch.no_grad()
    def to_dense(self) -> UNet2DConditionModel:
        """The same function as a plain `UNet2DConditionModel`, each product multiplied out.

        Raises DistilleryError if blocks are removed.
        """
        check_no_removed(self.config, "to_dense")
        with without_weights():
            dense = UNet2DConditionModel(**unet_arguments(self.config))
        return assign_state(dense, self.merged_state()).train(self.training)

    @torch.no_grad()
    def merged_state(self) -> dict[str, Tensor]:
        """Its weights by the names of a plain U-Net, each product multiplied out; those of removed
        blocks are not there."""
        state = self.state_dict()
        for name, layer in low_rank_layers(self).items():
            merged = {"weight": layer.merged_weight(), "bias": layer.bias}
            for key in [key for key in state if key.startswith(f"{name}.")]:
                del state[key]
            state |= {f"{name}.{key}": value for key, value in merged.items() if value is not None}
        return state

    def fuse_qkv_projections(self):
        """Not available: there is no dense weight to concatenate; `to_dense()` first."""
        raise DistilleryError("there are no q, k, v weights to fuse; call to_dense() first")


# diffusers reads the names of config entries from this signature.
_base = inspect.signature(UNet2DConditionModel.__init__)
_OWN = ("ranks", "removed")
LowRankUNet2DConditionModel.__init__.__signature__ = _base.replace(
    parameters=[
        *_base.parameters.values(),
        *(inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None) for n in _OWN),
    ]
)


def lora_targets(model: nn.Module, names: list[str]) -> list[str]:
    """Full names of the Linear and Conv2d modules under layers whose name ends in one of `names`.

    For PEFT's `target_modules`: LoRA knows Linear and Conv2d, so on a low-rank layer it goes to
    both factors. Raises DistilleryError if nothing matches.
    """
    endings = tuple(f".{name}" for name in names)
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and f".{name}".removesuffix(".reduce").removesuffix(".expand").endswith(endings)
    ]
    if not targets:
        raise DistilleryError(f"no Linear or Conv2d layer ends in any of {names}")
    return targets


def unet_arguments(config: Mapping) -> dict:
    """The arguments of `UNet2DConditionModel` in a config, without private keys and our own."""
    return init_arguments(UNet2DConditionModel, config, *_OWN)


def _materialise(model: nn.Module, device: torch.device) -> None:
    """Allocate what is on meta and fill it with each layer's default random values."""
    for name, module in model.named_modules():
        if not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            continue
        if not hasattr(module, "reset_parameters"):
            raise DistilleryError(f"{name}: {type(module).__name__} has no reset_parameters")
        module.to_empty(device=device, recurse=False)
        module.reset_parameters()
