"""The tensors of a control adapter before its first step, and which of them train.

In: an adapter's skeleton and the U-Net it is a copy of. Out: the skeleton filled, parameters
marked. The U-Net is unchanged; the caller seeds what is drawn.
"""

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from distillery.core.errors import DistilleryError
from distillery.models.control_adapter.encoder import encoder_state, is_encoder
from distillery.models.control_adapter.features import FeatureDenorm, zero_output
from distillery.models.strict import assign_state


@torch.no_grad()
def fill(adapter: nn.Module, unet: UNet2DConditionModel) -> None:
    """Give a skeleton the tensors of `unet`, and the starting values to what it has not.

    Raises DistilleryError if the U-Net has no tensor for a layer of the encoder.
    """
    copied = encoder_state(unet, adapter.state_dict())
    denorms = [module for module in adapter.modules() if isinstance(module, FeatureDenorm)]
    outputs = [*adapter.controlnet_down_blocks, adapter.controlnet_mid_block]
    phis = [phi for denorm in denorms for phi in (denorm.phi_gamma, denorm.phi_beta)]
    for module in [adapter.extractor, *outputs, *phis]:
        module.to_empty(device="cpu")
    for module in [adapter.extractor, *denorms]:
        module.reset_parameters()
    for conv in outputs:
        zero_output(conv)
    state = adapter.state_dict()
    own = {name: tensor.to(unet.dtype) for name, tensor in state.items() if not tensor.is_meta}
    if missing := sorted(set(state) - set(own) - set(copied)):
        raise DistilleryError(
            f"control adapter: the U-Net has no tensor for {missing[0]}; merge its adapters, and "
            "use one whose encoder has all of its blocks"
        )
    assign_state(adapter, {**own, **copied})


def mark_trained(adapter: nn.Module, *, encoder_frozen: bool) -> None:
    """Mark what trains: all, or all but the copied encoder; pretrained norms in FDN never."""
    for name, parameter in adapter.named_parameters():
        added = ".kronecker_" in name or ".phi_" in name
        frozen = encoder_frozen and is_encoder(name) and not added
        in_denorm = ".norm1.norm." in name or ".norm2.norm." in name
        parameter.requires_grad_(not frozen and not in_denorm)
