"""The section evaluate of params.yaml: what is measured, and by which networks."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Frozen, Positive


class Evaluate(Frozen):
    """What is measured, and by which networks."""

    num_samples: Positive
    """Images per model and training seed that are measured; at most those that are drawn."""
    num_prediction_samples: Positive
    """Test records on which predictions are compared with the teacher's."""
    feature_extractor: str
    """Network of FID and KID: teacher_clip, or a local folder of a vision model."""
    clip_model: str
    """Network of the CLIP score: teacher_clip, or a local folder of a CLIP model."""
    lpips: str | None
    """Network of LPIPS: teacher_clip, a folder of AlexNet, VGG-16 or CLIP; null leaves it out."""
    prompt_prefix: str
    """Text that is put before captions in the CLIP score."""
    num_bootstrap: Annotated[int, Field(ge=100)]
    """Resamples that the intervals of per-image metrics are taken from."""
    num_blocks: Annotated[int, Field(ge=2)]
    """Blocks of images that the intervals of FID and KID are taken from."""
