"""A small ControlNet that gives every residual its U-Net expects, whatever its own widths.

Loads with `diffusers.AutoModel.from_pretrained(FOLDER, trust_remote_code=True)` and goes into
`StableDiffusionControlNetPipeline`. Made by diffusion-distillery (Apache-2.0), which trains them.
"""

import inspect
import math

import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.controlnet import ControlNetOutput
from torch import nn

WEIGHTS_VARIANT = "distillery"  # of the file's name: plain classes must not take it for theirs
OWN_ARGUMENTS = {
    "unet_channels": None,
    "unet_layers_per_block": None,
    "output_map": None,
    "modulation": "none",
    "hadamard_ranks": None,
    "auto_map": None,
}


class FiLM(nn.Module):
    """Gain and offset per channel from the time embedding (Perez et al. 2018)."""

    def __init__(self, channels, time_channels):
        super().__init__()
        self.linear = nn.Linear(time_channels, 2 * channels)

    def forward(self, h, temb):
        gain, offset = self.linear(nn.functional.silu(temb))[:, :, None, None].chunk(2, dim=1)
        return h * (1 + gain) + offset


class StaticModulation(nn.Module):
    """Gain and offset per channel."""

    def __init__(self, channels, time_channels):
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, h, temb):
        return h * (1 + self.gain[:, None, None]) + self.offset[:, None, None]


class SqueezeExcitation(nn.Module):
    """Gains from the features' means (Hu et al. 2018), doubled."""

    def __init__(self, channels, time_channels):
        super().__init__()
        inner = max(channels // 16, 4)
        self.squeeze, self.excite = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, h, temb):
        gain = self.excite(nn.functional.relu(self.squeeze(h.mean(dim=(2, 3)))))
        return h * (2 * gain.sigmoid()[:, :, None, None])


class NoModulation(nn.Module):
    """Features as they are."""

    def __init__(self, channels, time_channels):
        super().__init__()

    def forward(self, h, temb):
        return h


MODULATIONS = {
    "none": NoModulation,
    "film": FiLM,
    "static": StaticModulation,
    "se": SqueezeExcitation,
}


class HadamardConv2d(nn.Module):
    """A convolution whose weight is the elementwise product of two low-rank matrices."""

    def __init__(self, dense, rank):
        super().__init__()
        self.shape, self.stride, self.padding = dense.weight.shape, dense.stride, dense.padding
        self.dilation = dense.dilation
        out, fan_in = self.shape[0], math.prod(self.shape[1:])
        self.x1, self.x2 = (nn.Parameter(torch.empty(out, rank)) for _ in range(2))
        self.y1, self.y2 = (nn.Parameter(torch.empty(rank, fan_in)) for _ in range(2))
        self.bias = None if dense.bias is None else nn.Parameter(torch.empty(out))

    def forward(self, x):
        weight = ((self.x1 @ self.y1) * (self.x2 @ self.y2)).reshape(self.shape)
        return nn.functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)


class StudentBlock(nn.Module):
    """A down block or the middle block, a modulation behind every ResNet and transformer."""

    def __init__(self, block, kind, time_channels):
        super().__init__()
        self.resnets = block.resnets
        self.attentions = getattr(block, "attentions", None) or nn.ModuleList()
        self.downsamplers = getattr(block, "downsamplers", None)
        widths = [resnet.out_channels for resnet in self.resnets]
        modulate = MODULATIONS[kind]
        self.resnet_modulations = nn.ModuleList(modulate(w, time_channels) for w in widths)
        self.attention_modulations = nn.ModuleList(
            modulate(widths[-1], time_channels) for _ in self.attentions
        )

    def forward(self, h, temb, text):
        """Features after each ResNet with its transformer, and after the downsampler."""
        states = []
        for index, resnet in enumerate(self.resnets):
            h = self.resnet_modulations[index](resnet(h, temb), temb)
            if index < len(self.attentions) and self.attentions[index] is not None:
                h = self.attentions[index](h, return_dict=False, **text)[0]
                h = self.attention_modulations[index](h, temb)
            states.append(h)
        if self.downsamplers is not None:
            states.append(self.downsamplers[0](h))
        return states


class StudentControlNet(ControlNetModel):
    """`ControlNetModel` with widths, depth and layers of its own; see config.json."""

    def __init__(
        self, *args, unet_channels=None, unet_layers_per_block=None, output_map=None,
        modulation="none", hadamard_ranks=None, auto_map=None, **kwargs,
    ):  # fmt: skip
        super().__init__(*args, **kwargs)
        channels, layers = self.config.block_out_channels, self.config.layers_per_block
        blocks = [StudentBlock(b, modulation, 4 * channels[0]) for b in self.down_blocks]
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = StudentBlock(self.mid_block, modulation, 4 * channels[0])
        for name, rank in (hadamard_ranks or {}).items():
            self.set_submodule(name, HadamardConv2d(self.get_submodule(name), rank))
        self._sources = _points(channels, layers)
        outputs = _points(unet_channels or channels, unet_layers_per_block or layers)
        output_map = output_map or {name: name for name in outputs}
        *down, mid = [
            nn.Conv2d(self._sources[output_map[name]], width, 1) for name, width in outputs.items()
        ]
        self.controlnet_down_blocks, self.controlnet_mid_block = nn.ModuleList(down), mid
        self._fed_by = [output_map[name] for name in outputs]
        self.register_to_config(
            unet_channels=unet_channels, unet_layers_per_block=unet_layers_per_block,
            output_map=output_map, modulation=modulation, hadamard_ranks=hadamard_ranks,
            auto_map=auto_map,
        )  # fmt: skip

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

    def forward(
        self, sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale=1.0,
        class_labels=None, timestep_cond=None, attention_mask=None, added_cond_kwargs=None,
        cross_attention_kwargs=None, guess_mode=False, return_dict=True,
    ):  # fmt: skip
        """Residuals as `ControlNetModel.forward` gives them."""
        if attention_mask is not None:
            attention_mask = ((1 - attention_mask.to(sample.dtype)) * -10000.0).unsqueeze(1)
        text = {
            "encoder_hidden_states": encoder_hidden_states,
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs,
        }
        timesteps = torch.as_tensor(timestep, device=sample.device).reshape(-1)
        embedded = self.time_proj(timesteps.expand(len(sample))).to(sample.dtype)
        temb = self.time_embedding(embedded, timestep_cond)
        if self.config.controlnet_conditioning_channel_order == "bgr":
            controlnet_cond = controlnet_cond.flip(1)
        states = [self.conv_in(sample) + self.controlnet_cond_embedding(controlnet_cond)]
        for block in self.down_blocks:
            states += block(states[-1], temb, text)
        states.append(self.mid_block(states[-1], temb, text)[-1])
        by_name = dict(zip(self._sources, states))  # noqa: B905
        convs = [*self.controlnet_down_blocks, self.controlnet_mid_block]
        residuals = [conv(by_name[name]) for conv, name in zip(convs, self._fed_by)]  # noqa: B905
        if self.config.global_pool_conditions:
            residuals, guess_mode = [r.mean((2, 3), keepdim=True) for r in residuals], False
        scales = torch.logspace(-1, 0, len(residuals)).tolist() if guess_mode else None
        scales = scales or [1.0] * len(residuals)
        *down, mid = [r * s * conditioning_scale for r, s in zip(residuals, scales)]  # noqa: B905
        return ControlNetOutput(tuple(down), mid) if return_dict else (down, mid)


def _points(channels, layers):
    """{place in an encoder: its channels}, in the order of a ControlNet's outputs."""
    points = {"conv_in": channels[0]}
    for level, width in enumerate(channels):
        points.update({f"level{level}.layer{layer}": width for layer in range(layers)})
        if level < len(channels) - 1:
            points[f"level{level}.downsampler"] = width
    points["mid"] = channels[-1]
    return points


# diffusers reads the names of config entries from this signature.
_base = inspect.signature(ControlNetModel.__init__)
_own = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    for name, default in OWN_ARGUMENTS.items()
]
StudentControlNet.__init__.__signature__ = _base.replace(
    parameters=[*_base.parameters.values(), *_own]
)
