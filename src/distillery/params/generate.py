"""The section generate of params.yaml: how all models draw."""

from distillery.params.base import Computation, Factor, Frozen, Name, Positive, Precision, Unet


class WholeStudent(Frozen):
    """Distilled parts that work together in one pipeline."""

    backbone: Unet
    """Low-rank U-Net of the pipeline: unet/ and a variant of distill_unet."""
    guidance: Name
    """Guidance student that was trained on this U-Net, a variant of distill_guidance."""
    controlnet: Name
    """Small ControlNet of the pipeline, a variant of distill_controlnet."""


class Generate(Computation):
    """Sampling; the same prompts and noise for every model."""

    num_samples: Positive
    """Images that each model draws for each training seed."""
    num_inference_steps: Positive
    """Denoising steps of one image."""
    guidance_scale: Factor
    """Scale of classifier-free guidance; up to 1 there is none."""
    batch_size: Positive
    """Images drawn at once; the results do not depend on it."""
    dtype: Precision
    """Number format of the U-Net, the VAE and the text encoder while drawing."""
    seed_offset: Positive
    """Added to the seed for the teacher's second set, which shows how far chance alone goes."""
    whole: dict[Name, WholeStudent]
    """Students made of several distilled parts, by name; {} leaves the family out."""
