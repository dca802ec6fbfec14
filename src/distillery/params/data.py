"""The sections of params.yaml that concern data, and the types that all sections share.

One frozen model per stage; every field says what it is. The descriptions are the source of the
generated parameter table and of the editor schema.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
PathName = Annotated[str, Field(pattern=r"^[\w./-]+$")]  # it stands in shell commands
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$")]


class Frozen(BaseModel):
    """Immutable, strict about types, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class Paths(Frozen):
    """Where everything lives, relative to the repository; each path stands here only."""

    raw: PathName
    """source images as img2dataset shards"""
    curated: PathName
    """kept images, by part"""
    selection: PathName
    """which images are used, and for what"""
    conditions: PathName
    """condition maps, by part and kind"""
    scenes_teacher: PathName
    """the shipped tiny Stable Diffusion"""
    teacher: PathName
    """the teacher, in diffusers layout"""
    teacher_cache: PathName
    """the teacher's outputs, by view and part"""
    init: PathName
    """the decomposed U-Net"""
    models: PathName
    """everything trained"""
    samples: PathName
    """generated images, by family and variant"""
    metrics: PathName
    """metrics, by family and variant"""
    results: PathName
    """committed results of larger runs, which the report reads"""
    reports: PathName
    """the report"""
    work: PathName
    """resume state, logs and run records; no front end declares it"""


class Data(Frozen):
    """What every stage must agree on about the data."""

    parts: Annotated[list[Count], Field(min_length=1, description="parts that run independently")]
    resolution_px: Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
    """side of the square images that models see"""

    @model_validator(mode="after")
    def _check(self) -> "Data":
        if self.parts != list(range(len(self.parts))):
            raise ValueError(f"parts must be 0, 1, ... in order, got {self.parts}")
        return self


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


class Curate(Frozen):
    """Filters; null switches one off. A row without the column passes, and is counted."""

    min_side_px: Positive
    """shorter side at least"""
    max_side_px: Positive
    """longer side at most, against decompression bombs"""
    max_aspect: Annotated[float, Field(ge=1)]
    """longer side over shorter side at most"""
    max_caption_chars: Positive
    """caption length at most"""
    min_caption_words: Positive
    """caption length at least"""
    max_punsafe: Share | None
    """LAION's probability of unsafe content at most"""
    max_pwatermark: Share | None
    """LAION's probability of a watermark at most"""
    min_aesthetic: float | None
    """LAION's aesthetic score at least"""
    min_similarity: float | None
    """LAION's image-text similarity at least"""
    stock_hosts: list[str]
    """URL hosts whose images are dropped"""
    blocklists: list[str]
    """files with one URL, md5 or sha256 a line"""


class Split(Frozen):
    """Shares of clusters."""

    val: Share
    """share of near-duplicate clusters for validation"""
    test: Share
    """share of near-duplicate clusters for samples and metrics"""


class Deduplicate(Frozen):
    """Global duplicates and splits."""

    max_hamming: Annotated[int, Field(ge=0, le=16)]
    """perceptual-hash distance up to which a pair is compared"""
    min_ssim: Share
    """structural similarity from which a pair is a duplicate"""
    split: Split


class ExtractConditions(Frozen):
    """Condition maps."""

    kinds: Annotated[list[Literal["canny", "sketch", "segmentation"]], Field(min_length=1)]
    """condition maps to make"""
    canny_low: Count
    """lower threshold of the Canny detector"""
    canny_high: Count
    """upper threshold of the Canny detector"""
    sketch: str
    """builtin (algorithmic) or a local folder of a learned annotator"""
    segmentation: str
    """builtin (exact for scenes, colour-quantised elsewhere) or a local folder"""
