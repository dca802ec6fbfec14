"""The section generate of params.yaml: how all models draw."""

from typing import Annotated, Literal

from pydantic import Field

from distillery.params.base import Frozen, Name, Positive


class WholeStudent(Frozen):
    """Distilled parts that work together in one pipeline."""

    backbone: Annotated[str, Field(pattern=r"^unet/[a-z0-9][a-z0-9_]*$")]
    """low-rank U-Net: unet/ and a variant of distill_unet"""
    guidance: Name
    """variant of distill_guidance that was trained on it"""
    controlnet: Name
    """variant of distill_controlnet"""


class Generate(Frozen):
    """Sampling; the same prompts and noise for every model."""

    num_samples: Positive
    """images per model and seed"""
    num_inference_steps: Positive
    """denoising steps"""
    guidance_scale: Annotated[float, Field(ge=0)]
    """classifier-free guidance; 1 is none"""
    batch_size: Positive
    """images at once; results do not depend on it"""
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"], Field(description="of the U-Net, VAE and text")
    ]
    seed_offset: Annotated[int, Field(ge=1, description="added to seed for the offset samples")]
    whole: dict[Name, WholeStudent]
    """students made of several distilled parts"""
