"""The student ControlNet, a `diffusers` ControlNet with widths, depth and layers of its own.

In: an architecture, or a teacher ControlNet and settings. Out: a `ControlNetModel` that gives every
residual the U-Net expects, whatever the student's own widths, through one projecting 1 x 1 zero
convolution per output. Settings and named students are `presets`, copying the teacher's weights
`init`, training the `distill_controlnet` stage.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

# A pipeline saved with this class loads it only if its module has the base class by this name.
from diffusers import ControlNetModel, ModelMixin  # noqa: F401
from diffusers.models.controlnets.controlnet import ControlNetOutput
from diffusers.utils import apply_lora_scale
from torch import Tensor, nn

# The U-Net of a saved pipeline may be low-rank; diffusers imports no module that a folder names.
import distillery.models.lowrank.unet  # noqa: F401
from distillery.models.hadamard.conv import plan_hadamard_ranks, replace_convolutions
from distillery.models.skeleton import without_weights
from distillery.models.strict import StrictLoading, assign_state, init_arguments
from distillery.models.student_controlnet.blocks import (
    StudentDownBlock,
    StudentMidBlock,
    scaled,
    zero_projection,
)
from distillery.models.student_controlnet.init import start_from_teacher
from distillery.models.student_controlnet.outputs import (
    Point,
    check_map,
    check_widths,
    default_map,
    encoder_points,
)
from distillery.models.student_controlnet.presets import (
    PRESETS,
    complete_settings,
    student_arguments,
)

__all__ = ["PRESETS", "StudentControlNet", "build_student"]
OWN_ARGUMENTS: dict[str, Any] = {
    "unet_channels": None,
    "unet_layers_per_block": None,
    "output_map": None,
    "modulation": "none",
    "hadamard_ranks": None,
}


class StudentControlNet(StrictLoading, ControlNetModel):
    """`ControlNetModel` whose inner widths and layers need not be the U-Net's.

    Takes every argument of `ControlNetModel`, for the student itself, and
    `unet_channels`, `unet_layers_per_block`: of the U-Net's encoder (default: the student's);
    `output_map`: {output: source} by the names of `outputs.encoder_points` (default: each
    output from the same place); `modulation`: a kind of `modulation.MODULATIONS`, after every
    ResNet and transformer; `hadamard_ranks`: {name of a convolution: rank}.

    At first all residuals are exactly zero. Raises DistilleryError with the reason for widths that
    groups or heads do not divide, an output map that does not fit, an unknown layer.
    """

    def __init__(
        self,
        *args: Any,
        unet_channels: Sequence[int] | None = None,
        unet_layers_per_block: int | None = None,
        output_map: Mapping[str, str] | None = None,
        modulation: str = "none",
        hadamard_ranks: Mapping[str, int] | None = None,
        **controlnet_arguments: Any,
    ) -> None:
        bound = _base.bind(self, *args, **controlnet_arguments)
        bound.apply_defaults()
        check_widths(bound.arguments)
        channels, layers = (
            bound.arguments["block_out_channels"],
            bound.arguments["layers_per_block"],
        )
        own = {
            "unet_channels": tuple(channels if unet_channels is None else unet_channels),
            "unet_layers_per_block": unet_layers_per_block or layers,
            "modulation": modulation,
            "hadamard_ranks": dict(sorted((hadamard_ranks or {}).items())),
        }
        if output_map is None:
            output_map = default_map(own["unet_channels"], own["unet_layers_per_block"], layers)
        sources = encoder_points(channels, layers)
        outputs = encoder_points(own["unet_channels"], own["unet_layers_per_block"])
        output_map = check_map(output_map, outputs, sources)
        super().__init__(*args, **controlnet_arguments)
        self._modulate(modulation, 4 * channels[0])
        replace_convolutions(self, own["hadamard_ranks"])
        self._project(output_map, outputs, sources)
        self.register_to_config(**own, output_map=output_map)

    def _modulate(self, kind: str, time_channels: int) -> None:
        blocks = [StudentDownBlock(block, kind, time_channels) for block in self.down_blocks]
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = StudentMidBlock(self.mid_block, kind, time_channels)

    def _project(
        self,
        output_map: Mapping[str, str],
        outputs: Mapping[str, Point],
        sources: Mapping[str, Point],
    ) -> None:
        """One zero convolution per output, from its source's channels to the U-Net's."""
        self._source_names = tuple(sources)
        projections = [
            zero_projection(sources[source].channels, outputs[name].channels)
            for name, source in output_map.items()
        ]
        self.controlnet_mid_block = projections.pop()
        self.controlnet_down_blocks = nn.ModuleList(projections)

    @classmethod
    def empty(
        cls, teacher: ControlNetModel | Mapping[str, Any], settings: Mapping[str, Any]
    ) -> "StudentControlNet":
        """The student of a teacher (or its config) on the meta device: for counting, no memory."""
        config = teacher if isinstance(teacher, Mapping) else teacher.config
        arguments = student_arguments(config, settings)
        full = complete_settings(settings)
        with without_weights():
            dense = cls(**arguments)
            ranks = plan_hadamard_ranks(dense, full["hadamard_rank"], full["hadamard_convs"])
            return cls(**arguments, hadamard_ranks=ranks) if ranks else dense

    @classmethod
    def from_teacher(
        cls, controlnet: ControlNetModel, *, seed: int = 0, num_sweeps: int = 5, **settings: Any
    ) -> "StudentControlNet":
        """A student of `controlnet` by the settings of `presets.SETTINGS`, on its device.

        With `init: teacher` it starts from the teacher's weights (`start_from_teacher`), else from
        `seed` alone; either way its residuals are zero. `num_sweeps` are those of the Hadamard fit.
        """
        skeleton = cls.empty(controlnet, settings)
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            student = cls(**init_arguments(cls, skeleton.config))
        if complete_settings(settings)["init"] == "teacher":
            start_from_teacher(student, controlnet, num_sweeps)
        weight = controlnet.conv_in.weight
        return nn.Module.to(student, weight.device, weight.dtype)

    @torch.no_grad()
    def to_dense(self) -> "StudentControlNet":
        """The same function with every Hadamard product multiplied out: larger, and faster."""
        state = self.state_dict()
        for name in self.config.hadamard_ranks:
            for key in [key for key in state if key.startswith(f"{name}.")]:
                del state[key]
            merged = self.get_submodule(name).to_dense().state_dict(prefix=f"{name}.")
            state.update(merged)
        arguments = {**init_arguments(type(self), self.config), "hadamard_ranks": None}
        with without_weights():
            dense = type(self)(**arguments)
        return assign_state(dense, state).train(self.training)

    @apply_lora_scale("cross_attention_kwargs")
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
        added_cond_kwargs: dict[str, Tensor] | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        guess_mode: bool = False,
        return_dict: bool = True,
    ) -> ControlNetOutput | tuple[list[Tensor], Tensor]:
        """Residuals of a latent (n, C, h, w) and a condition (n, 3, 8h, 8w) in [0, 1].

        Arguments and result as in `ControlNetModel.forward`; `class_labels` and
        `added_cond_kwargs` belong to architectures that no student has, and are not looked at.
        """
        if attention_mask is not None:
            attention_mask = ((1 - attention_mask.to(sample.dtype)) * -10000.0).unsqueeze(1)
        text = {
            "encoder_hidden_states": encoder_hidden_states,
            "attention_mask": attention_mask,
            "cross_attention_kwargs": cross_attention_kwargs,
        }
        temb = self._time_embedding(sample, timestep, timestep_cond)
        sources = self._encode(sample, temb, controlnet_cond, text)
        projections = [*self.controlnet_down_blocks, self.controlnet_mid_block]
        names = self.config.output_map.values()
        residuals = [p(sources[name]) for p, name in zip(projections, names, strict=True)]
        if self.config.global_pool_conditions:
            residuals, guess_mode = [r.mean((2, 3), keepdim=True) for r in residuals], False
        *down, mid = scaled(residuals, conditioning_scale, guess_mode)
        if not return_dict:
            return down, mid
        return ControlNetOutput(down_block_res_samples=down, mid_block_res_sample=mid)

    def _time_embedding(
        self, sample: Tensor, timestep: Tensor | float | int, timestep_cond: Tensor | None
    ) -> Tensor:
        if not torch.is_tensor(timestep):
            timestep = torch.tensor([timestep], device=sample.device)
        timesteps = timestep.to(sample.device).reshape(-1).expand(len(sample))
        return self.time_embedding(self.time_proj(timesteps).to(sample.dtype), timestep_cond)

    def _encode(
        self, sample: Tensor, temb: Tensor, condition: Tensor, text: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Activations at every source."""
        if self.config.controlnet_conditioning_channel_order == "bgr":
            condition = condition.flip(1)
        states = [self.conv_in(sample) + self.controlnet_cond_embedding(condition)]
        for block in self.down_blocks:
            states += block(states[-1], temb, text)
        states.append(self.mid_block(states[-1], temb, text))
        return dict(zip(self._source_names, states, strict=True))


# diffusers reads the names of config entries from this signature.
_base = inspect.signature(ControlNetModel.__init__)
_own = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    for name, default in OWN_ARGUMENTS.items()
]
StudentControlNet.__init__.__signature__ = _base.replace(
    parameters=[*_base.parameters.values(), *_own]
)


def build_student(
    teacher_controlnet: ControlNetModel, settings: Mapping[str, Any], seed: int
) -> StudentControlNet:
    """The starting point of a variant: `StudentControlNet.from_teacher` by a mapping of settings.

    `PRESETS[name]` are settings. For a student without distillation the teacher is
    `ControlNetModel.from_unet(unet)`.
    """
    return StudentControlNet.from_teacher(teacher_controlnet, seed=seed, **settings)
