"""Stage `extract_conditions`: the selected images of one part in, their condition maps out."""

from distillery.core.run import Run
from distillery.data.conditions.annotate import annotate_shard, build_annotators, write_no_maps
from distillery.data.loader import read_selection
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["extract_conditions", "device", "num_threads"])
def extract_conditions(
    params: Params, run: Run, part: int, curated: In, selection: In, conditions: Out
) -> None:
    """Draw the condition maps of every selected image, losslessly and full size."""
    settings = params.extract_conditions
    annotators = build_annotators(settings.kinds, dict(settings), params.device)
    selected = {row["key"] for row in read_selection(selection) if row["part"] == part}
    shards = sorted(curated.glob("[0-9]*.parquet"))
    if not shards:  # curation kept nothing of this part
        write_no_maps(conditions, settings.kinds)
    with run.progress(len(shards), unit="shard") as progress:
        for shard in shards:
            targets = {kind: conditions / kind / shard.name for kind in settings.kinds}
            missing = {k: t for k, t in targets.items() if not run.reuse(t, f"{k}-{t.name}")}
            annotate_shard(shard, missing, annotators, selected)
            for kind, target in missing.items():
                run.finish(target, f"{kind}-{target.name}")
            progress.update()


if __name__ == "__main__":
    extract_conditions.main()
