"""The section ingest of params.yaml: where images and captions come from."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from distillery.params.base import Count, Frozen, Positive, Share


class Scenes(Frozen):
    """The procedural source; shares are fractions of num_scenes."""

    num_scenes: Positive
    """scenes drawn, planted defects included"""
    size_px: Annotated[int, Field(ge=32, le=512)]
    """side of a scene"""
    seed: Count
    """first scene; the teacher's own training range is refused"""
    defects: dict[str, Share]
    """share of scenes that get each planted, labelled defect"""


class Download(Frozen):
    """How the images of a list of URLs are fetched; of it, only max_bytes runs `ingest` again."""

    num_threads: Annotated[int, Field(ge=1, le=256)]
    """downloads at a time"""
    max_per_host: Positive
    """requests to one host at a time"""
    timeout_s: Annotated[float, Field(gt=0)]
    """time for one try, redirects included"""
    max_bytes: Annotated[int, Field(ge=1, le=2**28)]
    """size of an image at most"""
    num_retries: Annotated[int, Field(ge=0, le=10)]
    """further tries after a timeout, a broken connection or a server's error"""
    max_failed_share: Share
    """share of failed rows above which the run ends with an error"""


class Ingest(Frozen):
    """Where images and captions come from."""

    source: Literal["scenes", "webdataset", "parquet", "folder", "urls"]
    """scenes (drawn), webdataset (img2dataset), parquet (image bytes), folder, urls (downloaded)"""
    path: str | None
    """file or folder of the other sources"""
    shard_size_samples: Positive
    """samples in a shard"""
    max_samples: Positive | None
    """stop after so many; null takes all"""
    download: Download
    scenes: Scenes

    @model_validator(mode="after")
    def _check(self) -> "Ingest":
        if self.source != "scenes" and self.path is None:
            raise ValueError(f"source {self.source} needs path: a file or folder")
        return self
