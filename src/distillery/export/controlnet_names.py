"""A student ControlNet as plain diffusers weights, and under the original ControlNet's names.

In: a `StudentControlNet` or a plain `ControlNetModel`. Out: a `ControlNetModel`, or tensors named
as in `cldm.ControlNet` (Zhang et al. 2023); or the reason why its architecture has no such form:
a narrower or shallower student projects its own features, for which those have no layer.
"""

from collections.abc import Iterable, Mapping

from diffusers import ControlNetModel
from torch import Tensor

from distillery.core.errors import DistilleryError
from distillery.export.encoder_names import down_modules, middle_modules, renamed
from distillery.models.gate import same_controlnet
from distillery.models.skeleton import without_weights
from distillery.models.strict import assign_state, init_arguments
from distillery.models.student_controlnet import StudentControlNet
from distillery.models.student_controlnet.model import OWN_ARGUMENTS

_NUM_HINT_BLOCKS = 6  # the original's hint network has eight convolutions, one size for all
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": f"input_hint_block.{2 * _NUM_HINT_BLOCKS + 2}",
}


def plain_controlnet(controlnet: ControlNetModel) -> ControlNetModel:
    """The same function as diffusers' own class, Hadamard products multiplied out.

    Raises DistilleryError with the reason where the student is not of the U-Net's architecture, and
    where the plain one answers otherwise.
    """
    if not isinstance(controlnet, StudentControlNet):
        return controlnet
    if reason := why_not_plain(controlnet.config):
        raise DistilleryError(
            f"this ControlNet {reason}, which plain ControlNets have no layers for; "
            "export --to hub or --to comfyui-node, which bring the code along"
        )
    with without_weights():
        arguments = init_arguments(ControlNetModel, controlnet.config, *OWN_ARGUMENTS)
        plain = ControlNetModel(**arguments)
    assign_state(plain, controlnet.to_dense().state_dict()).eval()
    same_controlnet(controlnet, plain)
    return plain


def why_not_plain(config: Mapping) -> str | None:
    """What keeps a student's config from being that of a plain ControlNet; None if nothing does."""
    if tuple(config["block_out_channels"]) != tuple(config["unet_channels"]):
        return "is narrower than its U-Net"
    if config["layers_per_block"] != config["unet_layers_per_block"]:
        return "has fewer layers than its U-Net"
    if config["modulation"] != "none":
        return f"has {config['modulation']} modulations"
    if any(output != source for output, source in config["output_map"].items()):
        return "has outputs fed from other places than their own"
    return None


def original_controlnet(controlnet: ControlNetModel) -> dict[str, Tensor]:
    """Tensors under `control_model.`, as A1111, ComfyUI and `from_single_file` read them.

    Raises DistilleryError as `plain_controlnet` does, and for layers that the original lacks.
    """
    state = plain_controlnet(controlnet).state_dict()
    names = controlnet_names(state)
    return {f"control_model.{names[key]}": tensor for key, tensor in state.items()}


def controlnet_names(keys: Iterable[str]) -> dict[str, str]:
    """{key: original key} of a plain ControlNet, without `control_model.`."""
    keys = list(keys)
    numbers = {"controlnet_down_blocks.": set(), "controlnet_cond_embedding.blocks.": set()}
    for start, values in numbers.items():
        values |= {key.removeprefix(start).split(".")[0] for key in keys if key.startswith(start)}
    outputs, hints = numbers.values()
    if len(hints) != _NUM_HINT_BLOCKS:
        raise DistilleryError(
            f"the hint network has {len(hints) + 2} convolutions, the original's has "
            f"{_NUM_HINT_BLOCKS + 2}; export --to diffusers"
        )
    modules = {
        **_OUTSIDE,
        **{f"controlnet_down_blocks.{n}": f"zero_convs.{n}.0" for n in outputs},
        **{
            f"controlnet_cond_embedding.blocks.{n}": f"input_hint_block.{2 * int(n) + 2}"
            for n in hints
        },
        **dict(down_modules(keys)),
        **middle_modules(keys),
    }
    return renamed(keys, modules)
