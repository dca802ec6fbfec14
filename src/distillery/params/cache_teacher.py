"""The section cache_teacher of params.yaml: what is cached of the teacher."""

from typing import Annotated, Literal

from pydantic import Field

from distillery.params.base import Frozen, Kind, Positive


class Generated(Frozen):
    """How the teacher draws what is learnt from; by DDIM, one sample a caption."""

    num_inference_steps: Positive
    """sampling steps"""
    guidance_scale: Annotated[float, Field(ge=0)]
    """classifier-free guidance; up to 1: none"""


class CacheTeacher(Frozen):
    """The teacher's cached outputs."""

    views: Annotated[list[Literal["cond", "uncond"]], Field(min_length=1)]
    """the outputs with and without caption; base is always there"""
    control_kinds: list[Kind]
    """kinds of maps for which the outputs under the teacher's ControlNet are cached too"""
    generated: Generated | None
    """null: latents of the images; else what the teacher draws from their captions"""
    num_slots: Positive
    """timesteps per image, one from each of so many strata"""
    shard_size_samples: Positive
    """records in a shard"""
    batch_size: Positive
    """images per teacher call"""
    dtype: Literal["float32", "float16"]
    """type of the stored outputs"""
    budget_bytes: Positive
    """refuse to start if the cache would be larger"""
