"""Layers that add a Kronecker update to a Linear, a Conv2d or a low-rank layer, in PEFT's form.

In: the layer to adapt and a `KroneckerConfig`. Out: a module of the same signature that holds the
layer unchanged and, per adapter, the factors A, u and v. Which layers are adapted is
`targets`' business, the arithmetic `ops`'s.

A shared A is registered on the first layer that uses it and looked up there by all others, so it
is one parameter: counted, optimised, saved and loaded once.
"""

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.models.kronecker import forms
from distillery.models.kronecker.ops import add_conv2d_update, add_linear_update, update_weight
from distillery.models.layers import LayerShape, LowRankConv2d, LowRankLayer, LowRankLinear


def adaptable_shape(layer: nn.Module) -> LayerShape | None:
    """The shape of the dense weight that an update of `layer` would have; None if unsupported."""
    if isinstance(layer, nn.Linear | LowRankLinear):
        return LayerShape(layer.out_features, layer.in_features)
    if isinstance(layer, LowRankConv2d) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
        return LayerShape(layer.out_channels, layer.in_channels * math.prod(_kernel_size(layer)))
    return None


def divides(n: int, shape: LayerShape) -> bool:
    """Whether blocks of n fit the weight: n divides both its rows and its columns."""
    return shape.out % n == 0 and shape.fan_in % n == 0


def kronecker_layer(layer: nn.Module) -> "KroneckerLayer":
    """A wrapper without any adapter around `layer`, or around the tuner layer that holds it."""
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    linear = isinstance(base, nn.Linear | LowRankLinear)
    return (KroneckerLinear if linear else KroneckerConv2d)(layer)


class KroneckerLayer(nn.Module, BaseTunerLayer):
    """What both kinds of layer share: factors per adapter, activation, merging."""

    adapter_layer_names = ("kronecker_A", "kronecker_u", "kronecker_v")
    other_param_names = ("scaling", "a_owner")

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.kronecker_A = nn.ParameterDict()
        self.kronecker_u = nn.ParameterDict()
        self.kronecker_v = nn.ParameterDict()
        self.scaling: dict[str, float] = {}
        # The ParameterDict in which A stands: this layer's own, another layer's when A is shared,
        # None for the plain low-rank form, which has no A.
        self.a_owner: dict[str, nn.ParameterDict | None] = {}
        self.merged_adapters: list[str] = []
        self.shape = adaptable_shape(self.get_base_layer())

    def update_layer(
        self, adapter: str, config: Any, shared_a: nn.ParameterDict | None = None
    ) -> None:
        """Add the factors of `adapter`; with `shared_a`, use the A that stands there."""
        n = config.n if divides(config.n, self.shape) else 1
        device, dtype = self._get_base_layer_device_and_dtype(self.get_base_layer())
        factory = {"device": device, "dtype": dtype}
        widths = self.shape.out // n, self.shape.fan_in // n
        u, v = (
            torch.empty(n, widths[0], config.r, **factory),
            torch.empty(n, config.r, widths[1], **factory),
        )
        self.kronecker_u[adapter], self.kronecker_v[adapter] = nn.Parameter(u), nn.Parameter(v)
        self.scaling[adapter] = config.alpha / config.r
        plain = n != config.n
        owner = None if plain else self.kronecker_A if shared_a is None else shared_a
        if owner is self.kronecker_A:
            owner[adapter] = nn.Parameter(torch.empty(n, n, n, **factory))
        self.a_owner[adapter] = owner
        self._reset(adapter, "v" if plain and config.zero == "A" else config.zero)

    @torch.no_grad()
    def _reset(self, adapter: str, zero: str) -> None:
        """Random factors that keep the input's scale up to the framework's 1/3, one of them zero.

        u and v are uniform with variance 1/(3 fan-in), A is normal with variance 1/n^2, as n blocks
        of n branches add up in every output.
        """
        u, v = self.kronecker_u[adapter], self.kronecker_v[adapter]
        for factor, fan_in, name in ((u, u.shape[2], "u"), (v, v.shape[2], "v")):
            bound = 0.0 if zero == name else math.sqrt(1 / fan_in)
            nn.init.uniform_(factor, -bound, bound)
        if self.a_owner[adapter] is self.kronecker_A:
            a = self.kronecker_A[adapter]
            nn.init.normal_(a, std=0.0 if zero == "A" else 1 / a.shape[0])

    def factors(self, adapter: str) -> tuple[Tensor, Tensor, Tensor]:
        """A times the adapter's scale [n, n, n], u [n, out/n, r], v [n, r, fan_in/n]."""
        u, v, owner = self.kronecker_u[adapter], self.kronecker_v[adapter], self.a_owner[adapter]
        scale = self.scaling[adapter]
        if owner is None:
            return u.new_full((1, 1, 1), scale), u, v
        return owner[adapter].to(u.device, u.dtype) * scale, u, v

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if self.disable_adapters and self.merged:
            self.unmerge()
        if (form := self._form(x)) != "apart":
            a, u, v = self.factors(self.active_adapters[0])
            return forms.FORMS[form](self.base_layer, x, a, u, v)
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter in self.active_adapters:
            if adapter in self.kronecker_u:
                a, u, v = self.factors(adapter)
                wide = self._add(result.to(u.dtype), x.to(u.dtype), a, u, v)
                result = wide.to(result.dtype)
        return result

    def _form(self, x: Tensor) -> forms.Form:
        """`apart`, where there is more to do than one adapter on a plain layer."""
        if not forms.kernels_cost(x.device):
            return "apart"
        own = [v for name, v in self.kronecker_v.items() if name in self.active_adapters]
        is_plain = isinstance(self.base_layer, nn.Linear | nn.Conv2d | LowRankLayer)
        if not is_plain or self.disable_adapters or self.merged:
            return "apart"
        if not len(own) == len(self.active_adapters) == 1:
            return "apart"
        return forms.choose(forms.work_of(self.base_layer, self.shape, x, own[0]), x.device)

    def _add(self, result: Tensor, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def get_delta_weight(self, adapter: str) -> Tensor:
        """The update in full, [out, in] or [out, in, kh, kw], in float32 at least."""
        factors = self.factors(adapter)
        wide = torch.promote_types(factors[1].dtype, torch.float32)
        return update_weight(*(factor.to(wide) for factor in factors)).reshape(self._weight_shape())

    def _weight_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of `adapter_names` (default: the active ones) to the weight in place.

        Raises DistilleryError on a low-rank layer, whose product cannot hold the update, and with
        `safe_merge` if the sum is not finite.
        """
        base = self.get_base_layer()
        if isinstance(base, LowRankLayer):
            raise DistilleryError(
                "a Kronecker update cannot be merged into a low-rank layer in place; "
                "call merge_and_unload(), which makes the layer dense"
            )
        for adapter in check_adapters_to_merge(self, adapter_names):
            if adapter in self.kronecker_u:
                base.weight.data = self._sum(base.weight, [adapter], safe_merge)
                self.merged_adapters.append(adapter)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Subtract what `merge` added; nothing happens if nothing is merged."""
        weight = self.get_base_layer().weight if self.merged_adapters else None
        while self.merged_adapters:
            delta = self.get_delta_weight(self.merged_adapters.pop())
            weight.data = (weight.to(delta.dtype) - delta).to(weight.dtype)

    @torch.no_grad()
    def _sum(self, weight: Tensor, adapters: list[str], check: bool) -> Tensor:
        total = weight
        for adapter in adapters:
            delta = self.get_delta_weight(adapter).to(weight.device)
            total = total.to(delta.dtype) + delta
        total = total.detach().to(weight.dtype)
        if check and not torch.isfinite(total).all():
            raise DistilleryError(f"adapters {adapters}: the merged weight is not finite")
        return total

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool = False, adapter_names: list[str] | None = None
    ) -> nn.Module:
        """The layer without adapters; merging makes a low-rank layer dense."""
        base = self.get_base_layer()
        if not merge or not isinstance(base, LowRankLayer):
            if merge:
                self.merge(safe_merge, adapter_names)
            return base
        wanted = self.active_adapters if adapter_names is None else adapter_names
        adapters = [adapter for adapter in wanted if adapter in self.kronecker_u]
        return self._dense(self._sum(base.merged_weight(), adapters, safe_merge))

    def _dense(self, weight: Tensor) -> nn.Module:
        """The dense layer that does as the low-rank base layer does, with `weight`."""
        bias = self.get_base_layer().bias
        dense = self._empty_dense(bias is not None)
        dense.weight = nn.Parameter(weight)
        dense.bias = bias
        return dense.train(self.training)

    def _empty_dense(self, bias: bool) -> nn.Module:
        raise NotImplementedError

    def _get_base_layer_device_and_dtype(self, base_layer: nn.Module):
        weight = next(base_layer.parameters())
        return weight.device, weight.dtype if weight.is_floating_point() else torch.float32

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return not isinstance(self.get_base_layer(), LowRankLayer)


class KroneckerLinear(KroneckerLayer):
    """(..., in) -> (..., out)."""

    def _add(self, result: Tensor, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return add_linear_update(result, x, a, u, v)

    def _weight_shape(self) -> tuple[int, ...]:
        return self.shape.out, self.shape.fan_in

    def _empty_dense(self, bias: bool) -> nn.Module:
        return nn.Linear(self.shape.fan_in, self.shape.out, bias, device="meta")


class KroneckerConv2d(KroneckerLayer):
    """[B, in, H, W] -> [B, out, H', W']."""

    def _add(self, result: Tensor, x: Tensor, a: Tensor, u: Tensor, v: Tensor) -> Tensor:
        return add_conv2d_update(result, x, a, u, v, forms.geometry_of(self.get_base_layer()))

    def _weight_shape(self) -> tuple[int, ...]:
        conv = forms.geometry_of(self.get_base_layer())
        return self.shape.out, conv.in_channels, *conv.kernel_size

    def _empty_dense(self, bias: bool) -> nn.Module:
        conv = forms.geometry_of(self.get_base_layer())
        kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        arguments = {name: getattr(conv, name) for name in kept}
        return nn.Conv2d(conv.in_channels, self.shape.out, bias=bias, device="meta", **arguments)


def _kernel_size(layer: nn.Module) -> tuple[int, ...]:
    return forms.geometry_of(layer).kernel_size
