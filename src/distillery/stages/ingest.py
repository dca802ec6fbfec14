"""Stage `ingest`: any source in, raw shards in img2dataset's layout out.

An interrupted run goes on after the last shard that it finished.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from distillery.core.run import Run
from distillery.data.curation.asked import (
    AbsentScoreError,
    Asked,
    asked_scores,
    count_without,
    unjudged_lines,
)
from distillery.data.curation.filters import COLUMN_FILTERS, build_filters
from distillery.data.ingest.download import Downloader
from distillery.data.ingest.download.rows import DownloadPool
from distillery.data.ingest.download.stats import has_images, require_downloads
from distillery.data.ingest.raw import write_raw_shards
from distillery.data.ingest.readers import read_source
from distillery.data.ingest.readers.datasets import read_datasets
from distillery.data.ingest.readers.scores import require_scores
from distillery.data.ingest.readers.urls import count_rows, list_tables, read_urls
from distillery.data.ingest.refused import require_rows, write_refused
from distillery.data.ingest.resume import ShardResume
from distillery.data.ingest.sample import RawSample
from distillery.data.scenes.defects import assign_defects, draw_samples
from distillery.data.scenes.draw import check_scene_seed
from distillery.params import Params
from distillery.params.ingest import Ingest
from distillery.stage import Out, stage


# Filters of `curate` are read for the scores that they ask for, to say what a source lacks.
# Of `ingest.download` only what the shards depend on: more patience or fewer threads must not throw
# away what is downloaded, and an error may have just advised them.
@stage(
    reads=["ingest.source", "ingest.path", "ingest.shard_size_samples", "ingest.max_samples",
           "ingest.map_columns",
           "ingest.download.max_bytes", "ingest.download.filters", "ingest.datasets",
           "ingest.scenes"],
    unrecorded=["ingest.download", "curate"],
)  # fmt: skip
def ingest(params: Params, run: Run, raw: Out) -> None:
    """Rewrite the source's images and captions as raw shards; nothing is decoded.

    Of a list of URLs, rows that the filters refuse by their columns are not downloaded.
    """
    settings = params.ingest
    if settings.source == "scenes":
        _draw_scenes(settings, run, raw)
        return
    _check_scores(settings, asked_scores({"curate": dict(params.curate)}))
    if settings.source == "urls":
        _download(settings, run, raw)
    else:
        _rewrite(settings, run, raw)


def _check_scores(settings: Ingest, by_curate: Sequence[Asked]) -> None:
    """An error where filters before the download lack a score, which they alone were given for;
    a line where those of `curate` do, whose limits come with the shipped params."""
    source = Path(settings.path)
    if settings.source == "urls":
        require_scores("urls", source, _asked_before(settings))
    if settings.source != "datasets":
        try:
            require_scores(settings.source, source, by_curate)
        except AbsentScoreError as error:
            print(f"{error}; rows without pass", file=sys.stderr)


def _asked_before(settings: Ingest) -> list[Asked]:
    return asked_scores({"ingest.download.filters": dict(settings.download.filters)})


def _draw_scenes(settings: Ingest, run: Run, raw: Path) -> None:
    scenes = settings.scenes
    check_scene_seed(scenes.seed)
    num_scenes = min(scenes.num_scenes, settings.max_samples or scenes.num_scenes)
    labels = assign_defects(num_scenes, scenes.seed, scenes.defects)
    draw = partial(draw_samples, labels=labels, seed=scenes.seed, size_px=scenes.size_px)
    with run.progress(num_scenes, unit="image") as progress:
        write_raw_shards(
            range(num_scenes),
            raw,
            settings.shard_size_samples,
            load=draw,
            keep_keys=True,
            resume=ShardResume(run),
            progress=progress.update,
        )


def _rewrite(settings: Ingest, run: Run, raw: Path) -> None:
    source = Path(settings.path)
    samples = islice(_read(settings), settings.max_samples)
    with run.progress(settings.max_samples, unit="image") as progress:
        write_raw_shards(
            samples,
            raw,
            settings.shard_size_samples,
            resume=ShardResume(run, source),
            progress=progress.update,
        )


def _read(settings: Ingest) -> Iterator[RawSample]:
    if settings.source != "datasets":
        return read_source(settings.source, Path(settings.path), settings.map_columns)
    chosen = settings.datasets
    return read_datasets(
        settings.path,
        image_column=chosen.image_column,
        caption_column=chosen.caption_column,
        split=chosen.split,
        map_columns=settings.map_columns,
    )


def _download(settings: Ingest, run: Run, raw: Path) -> None:
    limits, source = settings.download, Path(settings.path)
    rules = dict(limits.filters)
    tables = list_tables(source)
    num_rows = count_rows(tables)
    resume = ShardResume(run, source, has_images, map(Path, rules["blocklists"]))
    downloader = Downloader(
        timeout_s=limits.timeout_s,
        max_bytes=limits.max_bytes,
        num_retries=limits.num_retries,
        max_per_host=limits.max_per_host,
    )
    total = min(num_rows, settings.max_samples or num_rows)
    refused: Counter[str] = Counter()
    rows = read_urls(tables, build_filters(COLUMN_FILTERS, **rules), refused)
    with (
        closing(rows),
        run.progress(total, unit="image") as progress,
        DownloadPool(downloader, limits.num_threads) as pool,
    ):
        write_raw_shards(
            islice(require_rows(rows, source, refused), settings.max_samples),
            raw,
            settings.shard_size_samples,
            load=pool.download,
            resume=resume,
            progress=progress.update,
        )
    write_refused(raw, refused)
    for line in unjudged_lines(*count_without(raw), _asked_before(settings)):
        print(line, file=sys.stderr)
    require_downloads(raw, source, limits.max_failed_share, again=resume.drop)


if __name__ == "__main__":
    ingest.main()
