"""A complete Stable Diffusion with random weights, small enough to build in every test."""

import string

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNET_CONFIG = {
    "sample_size": 8,
    "in_channels": 16,
    "out_channels": 16,
    "block_out_channels": (32, 64),
    "layers_per_block": 2,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 16,
}
# A third of the layers more; as above the second resolution has no attention, like SD's last.
ATTENTION_EVERYWHERE = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2,
}


def tiny_unet(**changes) -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(**{**UNET_CONFIG, **changes}).eval()


def unet_inputs(dtype: torch.dtype = torch.float32, seed: int = 1) -> dict:
    """Keyword arguments of one U-Net call: two latents of 8 x 8, five text tokens."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(2, 16, 8, 8, generator=generator).to(dtype),
        "timestep": torch.tensor([7, 801]),
        "encoder_hidden_states": torch.randn(2, 5, 32, generator=generator).to(dtype),
    }


def tiny_pipeline(layers_per_block: int = 1, **changes) -> StableDiffusionPipeline:
    """64 px images, latents 16 x 8 x 8, letters for words; `changes` are its U-Net's."""
    tokenizer = _tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vae = {
        "latent_channels": 16,
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "sample_size": 64,
    }
    torch.manual_seed(0)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(**vae),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=tiny_unet(layers_per_block=layers_per_block, **changes),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet of `unet` whose residuals are not zero."""
    torch.manual_seed(0)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8, 16, 16))
    for parameter in controlnet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return controlnet.requires_grad_(False).eval()


def _tokenizer() -> CLIPTokenizer:
    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase]
    words = [*letters, "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16)
