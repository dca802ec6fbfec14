"""Public architecture settings of Stable Diffusion 1.5 and 2.1, built without weights.

In: `sd15` or `sd21`. Out: U-Net, text encoder and VAE on the meta device, for counting parameters
and planning ranks in a fraction of a second. Models with weights come from the teacher's folder.
"""

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from distillery.core.errors import DistilleryError
from distillery.models.skeleton import on_meta

_UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
}
_VAE = {
    "sample_size": 512,
    "latent_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_SD15_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
_SD21_TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
# From each release's unet/, vae/ and text_encoder/config.json. SD-turbo and SD 2.1-base have the
# shape of sd21; the 768 px release of SD 2.1 differs in sample_size alone.
ARCHITECTURES = {
    "sd15": {
        "unet": {**_UNET, "cross_attention_dim": 768, "attention_head_dim": 8},
        "text_encoder": _SD15_TEXT,
        "vae": _VAE,
    },
    "sd21": {
        "unet": {
            **_UNET,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        "text_encoder": _SD21_TEXT,
        "vae": _VAE,
    },
}


def build_meta(name: str) -> dict[str, nn.Module]:
    """`unet`, `text_encoder` and `vae` of an architecture on the meta device: shapes, no memory.

    Raises DistilleryError for a name that is not in `ARCHITECTURES`.
    """
    if name not in ARCHITECTURES:
        raise DistilleryError(
            f"architecture {name!r} is unknown; choose one of {', '.join(ARCHITECTURES)}"
        )
    settings = ARCHITECTURES[name]
    with on_meta():
        return {
            "unet": UNet2DConditionModel(**settings["unet"]),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**settings["text_encoder"])),
            "vae": AutoencoderKL(**settings["vae"]),
        }
