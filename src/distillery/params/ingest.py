"""The section ingest of params.yaml: where images and captions come from."""

from typing import Annotated, Literal

from pydantic import Field, create_model, model_validator

from distillery.data.curation.filters import COLUMN_FILTERS, filter_params
from distillery.data.ingest.sample import SEGMENTATION_SUFFIX
from distillery.params.base import AboveZero, Column, Count, Frozen, Positive, Share

WITH_COLUMNS = ("parquet", "datasets", "webdataset")


class Scenes(Frozen):
    """The procedural source; shares are fractions of num_scenes."""

    num_scenes: Positive
    """How many scenes are drawn, planted defects included."""
    size_px: Annotated[int, Field(ge=32, le=512)]
    """Side of a drawn scene."""
    seed: Count
    """Number of the first scene; the range that the shipped teacher was trained on is refused."""
    defects: dict[str, Share]
    """Share of the scenes that get each defect, planted with a label to measure curation by."""


BeforeDownload = create_model(
    "BeforeDownload",
    __base__=Frozen,
    __doc__="Filters on a list's own columns; null or an empty list switches one off.",
    **filter_params(COLUMN_FILTERS),
)


class Download(Frozen):
    """How the images of a list of URLs are fetched; max_bytes and filters run `ingest` again."""

    num_threads: Annotated[int, Field(ge=1, le=256)]
    """How many downloads run at a time."""
    max_per_host: Positive
    """How many requests to one host run at a time."""
    timeout_s: AboveZero
    """Time that one try may take, redirects included."""
    max_bytes: Annotated[int, Field(ge=1, le=2**28)]
    """Largest image file that is accepted; a longer answer is cut off and counted as failed."""
    num_retries: Annotated[int, Field(ge=0, le=10)]
    """Further tries after a timeout, a broken connection or a server's error."""
    max_failed_share: Share
    """Share of failed rows above which the stage ends with an error."""
    filters: BeforeDownload
    """Which rows of the list are left out before anything is downloaded; `curate` filters again."""


class Datasets(Frozen):
    """Which rows and columns of a Hugging Face data set are read."""

    image_column: str
    """Name of the column that holds the images."""
    caption_column: str
    """Name of the column that holds the captions; of a list, the first one counts."""
    split: str
    """Name of the split that is read, e.g. train."""


_LABELS = SEGMENTATION_SUFFIX.removesuffix(".png")


class Ingest(Frozen):
    """Where images and captions come from."""

    source: Literal["scenes", "webdataset", "parquet", "folder", "urls", "datasets"]
    """What is read: drawn scenes, img2dataset shards, image parquet, a folder, URLs, a data set."""
    path: str | None
    """File or folder of the source, or a hub id for datasets; null for scenes, which are drawn."""
    shard_size_samples: Positive
    """Samples in one shard of the raw images."""
    max_samples: Positive | None
    """Stop after so many samples; null takes all of them."""
    map_columns: list[Column]
    """Columns with condition maps that are taken along, for extract_conditions.kinds to name."""
    download: Download
    """How the images of source urls are fetched."""
    datasets: Datasets
    """What is read for source datasets."""
    scenes: Scenes
    """What is drawn for source scenes."""

    @model_validator(mode="after")
    def _check(self) -> "Ingest":
        if self.source != "scenes" and not self.path:
            raise ValueError(f"source {self.source} needs path: a file or folder")
        if len(set(self.map_columns)) < len(self.map_columns):
            raise ValueError("map_columns: names a column twice; keep one")
        if labels := [name for name in self.map_columns if name.lower() == _LABELS]:
            raise ValueError(
                f"map_columns: {labels[0]} is what the source's own labels are called, which the "
                "kind segmentation takes; rename it, or leave it out"
            )
        if self.map_columns and self.source not in WITH_COLUMNS:
            raise ValueError(
                f"map_columns: source {self.source} has no columns of maps; put the maps into a "
                "folder and set extract_conditions.kinds: {KIND: {from: folder PATH}}"
            )
        return self
