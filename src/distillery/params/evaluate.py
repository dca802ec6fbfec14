"""The section evaluate of params.yaml: what is measured, and by which networks."""

from typing import Annotated

from pydantic import Field

from distillery.params.base import Frozen, Positive


class Evaluate(Frozen):
    """Metrics and their settings."""

    num_samples: Positive
    """images per model and seed that are measured"""
    num_prediction_samples: Annotated[
        int, Field(ge=1, description="test records for the distance of predictions")
    ]
    feature_extractor: Annotated[
        str, Field(description="of FID and KID: teacher_clip, or a local folder of a vision model")
    ]
    clip_model: Annotated[
        str, Field(description="of the CLIP score: teacher_clip, or a local folder of a CLIP model")
    ]
    lpips: Annotated[
        str | None,
        Field(
            description="of LPIPS: teacher_clip, a folder of AlexNet, VGG-16 or a CLIP model, "
            "or null to leave it out"
        ),
    ]
    prompt_prefix: Annotated[str, Field(description="put before captions in the CLIP score")]
    num_bootstrap: Annotated[int, Field(ge=100, description="resamples of per-image metrics")]
    num_blocks: Annotated[int, Field(ge=2, description="image blocks of the FID and KID intervals")]
