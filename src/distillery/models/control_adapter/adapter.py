"""The control adapter of ELR-Diffusion's Stage II, a `diffusers` ControlNet for several conditions.

In: a dense or low-rank U-Net, whose encoder and middle block are copied. Out: a model that steers
the frozen U-Net in `StableDiffusionControlNetPipeline`, saves and loads alone, and says in its
config which ranks, conditions and Kronecker settings it has. What a folder stores: the copied
encoder (frozen or not), Kronecker factors, extractor, FDN and zero convolutions; not the decoder.
Source: ELR-Diffusion, Stage II; Uni-ControlNet (Zhao et al. 2023). Not here: training.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

# A pipeline saved with this class loads it only if its module has the base class by this name.
from diffusers import ControlNetModel, ModelMixin, UNet2DConditionModel  # noqa: F401
from diffusers.models.controlnets.controlnet import ControlNetOutput
from PIL import Image
from torch import Tensor

# The U-Net of a saved pipeline may be low-rank; diffusers imports no module that a folder names.
import distillery.models.lowrank.unet  # noqa: F401
from distillery.core.errors import DistilleryError
from distillery.models.control_adapter.encoder import (
    encode,
    encoder_arguments,
    encoder_layers,
    encoder_ranks,
)
from distillery.models.control_adapter.features import (
    ConditionExtractor,
    FeatureDenorm,
    level_channels,
    zero_output,
)
from distillery.models.control_adapter.hints import KINDS, check_hint, stack
from distillery.models.control_adapter.kronecker import inject_kronecker
from distillery.models.control_adapter.weights import fill, mark_trained
from distillery.models.layers import low_rank_like
from distillery.models.skeleton import without_weights
from distillery.models.strict import StrictLoading

NORMS = ("frozen", "official")
# The seven local conditions of Uni-ControlNet; its 21 hint channels count 411.904M on SD 1.5.
UNI_CONTROLNET_KINDS = ("canny", "mlsd", "hed", "sketch", "openpose", "midas", "segmentation")


class ControlAdapter(StrictLoading, ControlNetModel):
    """A copy of a U-Net's encoder and middle block with conditions injected at every level.

    Takes the arguments of `ControlNetModel` and: `ranks`, {layer name: rank} of any layer but the
    zero convolutions; `conditions`, the kinds in the order of the hint's channels; `norm`,
    `frozen` or `official` (see `FeatureDenorm`); `kronecker`, None to train the whole adapter or
    the settings {n, r, alpha, share_A, zero, indivisible} of the update of the copied encoder,
    which is frozen then. Values are random until loaded; `from_unet` copies them.
    """

    def __init__(
        self,
        *args: Any,
        ranks: Mapping[str, int] | None = None,
        conditions: Sequence[str] = KINDS,
        norm: str = "frozen",
        kronecker: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        if norm not in NORMS:
            raise DistilleryError(f"norm: {norm!r} is unknown; use one of {', '.join(NORMS)}")
        arguments["conditioning_channels"] = 3 * len(conditions)
        super().__init__(*args, **arguments)
        del self.controlnet_cond_embedding
        widths = self.config.block_out_channels
        self.extractor = ConditionExtractor(3 * len(conditions), widths)
        for block, channels in zip(self.down_blocks, level_channels(widths), strict=True):
            first = block.resnets[0]
            first.norm1 = FeatureDenorm(first.norm1, channels, norm)
            first.norm2 = FeatureDenorm(first.norm2, channels, norm)
        self._replace_layers(ranks or {})
        self.register_to_config(
            ranks=dict(sorted((ranks or {}).items())),
            conditions=list(conditions),
            norm=norm,
            kronecker=None,
        )
        if kronecker:
            self.add_kronecker(kronecker)
        self._set_trained()

    @classmethod
    def from_unet(
        cls,
        unet: UNet2DConditionModel,
        *,
        conditions: Sequence[str] = KINDS,
        norm: str = "frozen",
        kronecker: Mapping[str, Any] | None = None,
        ranks: Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> "ControlAdapter":
        """An adapter of `unet`, dense or low-rank; its device and dtype, the U-Net is unchanged.

        With `norm` `frozen` the U-Net's output does not change before the first training step,
        and neither do the features of the copied encoder. What is not copied is drawn from `seed`
        alone. `ranks` makes further layers low-rank, of the extractor and of FDN.
        """
        every = {**encoder_ranks(unet.config.get("ranks")), **(ranks or {})}
        adapter = cls.empty(unet.config, ranks=every, conditions=conditions, norm=norm)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fill(adapter, unet)
            if kronecker:
                adapter.add_kronecker(kronecker)
        adapter._set_trained()
        return adapter.to(unet.device).train(unet.training)

    @classmethod
    def empty(
        cls,
        unet_config: Mapping,
        *,
        ranks: Mapping[str, int] | None = None,
        conditions: Sequence[str] = KINDS,
        norm: str = "frozen",
        kronecker: Mapping[str, Any] | None = None,
    ) -> "ControlAdapter":
        """The architecture on the meta device: for counting, without weights, in milliseconds.

        `plan_ranks(ControlAdapter.empty(config), keep_dense=["conv_in", "controlnet_*"])` gives the
        ranks of an adapter that is low-rank throughout, as in the paper's 750M.
        """
        settings = {"conditions": conditions, "norm": norm, "kronecker": kronecker, "ranks": ranks}
        with without_weights():
            return cls(**encoder_arguments(unet_config), **settings)

    def loaded(self) -> None:
        """Mark what trains, as before saving."""
        self._set_trained()

    @staticmethod
    def stack(kinds: Sequence[str] = KINDS, **maps: Tensor | Image.Image | None) -> Tensor:
        """The hint [n, 3 len(kinds), H, W] of condition maps by kind; a missing one is zeros.

        A map is float [n, 3, H, W] or [3, H, W] in [0, 1], or a PIL image. `kinds` is the adapter's
        `config.conditions`. Raises DistilleryError for an unknown kind or sizes that differ.
        """
        return stack(kinds, maps)

    def add_kronecker(self, settings: Mapping[str, Any]) -> None:
        """Freeze the copied encoder and give each of its layers a Kronecker update."""
        inject_kronecker(self, settings, encoder_layers(self))
        self.register_to_config(kronecker=dict(settings))
        self._set_trained()

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        controlnet_cond: Tensor,
        conditioning_scale: float = 1.0,
        class_labels: Tensor | None = None,
        timestep_cond: Tensor | None = None,
        attention_mask: Tensor | None = None,
        added_cond_kwargs: Mapping | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[list[Tensor], Tensor]:
        """Residuals for the U-Net's skip connections and its middle block, times the scale.

        `sample` is [n, C, h, w], `controlnet_cond` [n or 1, 3 num_conditions, 8 h, 8 w] as `stack`
        makes it. In `guess_mode` residuals grow from a tenth to the whole with depth, as
        ControlNet's. `class_labels` and `added_cond_kwargs` are part of the signature only.
        Raises DistilleryError for a hint of another size or number of channels.
        """
        check_hint(controlnet_cond, sample, self.config.conditions, len(self.down_blocks))
        hint = controlnet_cond.to(sample.dtype)
        if attention_mask is not None:
            attention_mask = ((1 - attention_mask.to(sample.dtype)) * -10000.0).unsqueeze(1)
        skips, middle = encode(
            self,
            sample,
            self._embed_time(timestep, timestep_cond, sample),
            encoder_hidden_states,
            self.extractor(hint),
            {
                "attention_mask": attention_mask,
                "cross_attention_kwargs": cross_attention_kwargs,
            },
        )
        scales = _scales(len(skips) + 1, conditioning_scale, guess_mode)
        convs = [*self.controlnet_down_blocks, self.controlnet_mid_block]
        outputs = [
            conv(x) * scale for conv, x, scale in zip(convs, [*skips, middle], scales, strict=True)
        ]
        if not return_dict:
            return outputs[:-1], outputs[-1]
        return ControlNetOutput(tuple(outputs[:-1]), outputs[-1])

    def _embed_time(
        self, timestep: Tensor | float | int, condition: Tensor | None, sample: Tensor
    ) -> Tensor:
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        embedded = self.time_proj(timesteps.expand(len(sample))).to(sample.dtype)
        return self.time_embedding(embedded, condition)

    def _replace_layers(self, ranks: Mapping[str, int]) -> None:
        layers = dict(self.named_modules())
        for name, rank in ranks.items():
            if name not in layers or name.startswith("controlnet_"):
                raise DistilleryError(f"ranks: the adapter has no layer {name!r} to decompose")
            self.set_submodule(name, low_rank_like(layers[name], rank, name))
        for conv in self.extractor.zero_convs:
            zero_output(conv)

    def _set_trained(self) -> None:
        mark_trained(self, encoder_frozen=self.config.kronecker is not None)


# diffusers reads the names of config entries from this signature.
_own = [
    parameter
    for parameter in inspect.signature(ControlAdapter.__init__).parameters.values()
    if parameter.name in ("ranks", "conditions", "norm", "kronecker")
]
_base = inspect.signature(ControlNetModel.__init__)
ControlAdapter.__init__.__signature__ = _base.replace(
    parameters=[*_base.parameters.values(), *_own]
)


def _scales(count: int, scale: float, guess_mode: bool) -> list[float]:
    """A factor per output; from a tenth to the whole in guess mode (ControlNet, Zhang 2023)."""
    if not guess_mode:
        return [scale] * count
    return [scale * value for value in torch.logspace(-1, 0, count).tolist()]
