"""Stage `extract_conditions`: the selected images of one part in, their condition maps out."""

import sys

from distillery.core.artifacts import write_json
from distillery.core.run import Run
from distillery.data.conditions.annotate import (
    COUNTS,
    annotate_shard,
    build_annotators,
    count_maps,
    left_out_lines,
    write_no_maps,
)
from distillery.data.conditions.own import open_own
from distillery.data.loader import read_selection
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["extract_conditions", "device", "num_threads"])
def extract_conditions(
    params: Params, run: Run, part: int, curated: In, selection: In, conditions: Out
) -> None:
    """Draw the condition maps of every selected image, or take the user's own, losslessly."""
    settings = params.extract_conditions
    annotators = build_annotators(settings.kinds, dict(settings), params.device)
    own = open_own(settings.kinds)
    states = {kind: f"-{maps.state()}" for kind, maps in own.items()}
    selected = read_selection(selection).of(part)
    shards = sorted(curated.glob("[0-9]*.parquet"))
    if not shards:  # curation kept nothing of this part
        write_no_maps(conditions, settings.kinds)
    with run.progress(len(shards), unit="shard") as progress:
        for shard in shards:
            targets = {kind: conditions / kind / shard.name for kind in settings.kinds}
            names = {kind: f"{kind}{states.get(kind, '')}-{shard.name}" for kind in targets}
            missing = {k: t for k, t in targets.items() if not run.reuse(t, names[k])}
            annotate_shard(shard, missing, annotators, selected)
            for kind, target in missing.items():
                run.finish(target, names[kind])
            progress.update()
    counts = count_maps(conditions, settings.kinds, own, shards, selected)
    write_json(conditions / COUNTS, counts)
    for line in left_out_lines(counts):
        print(line, file=sys.stderr)


if __name__ == "__main__":
    extract_conditions.main()
