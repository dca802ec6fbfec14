"""The section cache_teacher of params.yaml: what is recorded of the teacher."""

from typing import Annotated, Literal

from pydantic import Field

from distillery.params.base import CachePrecision, Factor, Frozen, Kind, Positive


class Generated(Frozen):
    """How the teacher draws what is learnt from; by DDIM, one sample a caption."""

    num_inference_steps: Positive
    """Denoising steps of a drawn sample."""
    guidance_scale: Factor
    """Scale of classifier-free guidance of a drawn sample; up to 1 there is none."""


class CacheTeacher(Frozen):
    """The teacher's outputs, recorded once for all trainings."""

    views: Annotated[list[Literal["cond", "uncond"]], Field(min_length=1)]
    """Outputs that are recorded: with caption, without; latents and texts always are."""
    control_kinds: list[Kind]
    """Kinds of maps for which the outputs under the teacher's ControlNet are recorded too."""
    generated: Generated | None
    """Learn from what the teacher draws from the captions; null takes the images themselves."""
    num_slots: Positive
    """Timesteps recorded for each image, one from each of so many strata."""
    shard_size_samples: Positive
    """Records in one shard of the cache."""
    batch_size: Positive
    """Images in one call of the teacher."""
    dtype: CachePrecision
    """Number format of what is recorded, fp32 or fp16; on a GPU also the teacher's own."""
    budget_bytes: Positive
    """Refuse to start when the whole cache would be larger."""
