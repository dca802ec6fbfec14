"""Stage `ingest`: any source in, raw shards in img2dataset's layout out."""

from itertools import islice
from pathlib import Path

from distillery.data.defects import write_scene_shards
from distillery.data.raw import write_raw_shards
from distillery.data.readers import read_source
from distillery.data.scenes import check_scene_seed
from distillery.params import Params
from distillery.params_data import Ingest
from distillery.run import Run
from distillery.stage import Out, stage


@stage(reads=["ingest"])
def ingest(params: Params, run: Run, raw: Out) -> None:
    """Rewrite the source's images and captions as raw shards; nothing is decoded or dropped."""
    settings = params.ingest
    if settings.source == "scenes":
        _draw_scenes(settings, run, raw)
        return
    samples = islice(read_source(settings.source, Path(settings.path)), settings.max_samples)
    with run.progress(settings.max_samples, unit="image") as progress:
        write_raw_shards(samples, raw, settings.shard_size_samples, on_shard=progress.update)


def _draw_scenes(settings: Ingest, run: Run, raw: Path) -> None:
    scenes = settings.scenes
    check_scene_seed(scenes.seed)
    num_scenes = min(scenes.num_scenes, settings.max_samples or scenes.num_scenes)
    with run.progress(num_scenes, unit="image") as progress:
        write_scene_shards(
            raw,
            num_scenes=num_scenes,
            seed=scenes.seed,
            size_px=scenes.size_px,
            shard_size=settings.shard_size_samples,
            defects=scenes.defects,
            progress=progress.update,
        )


if __name__ == "__main__":
    ingest.main()
