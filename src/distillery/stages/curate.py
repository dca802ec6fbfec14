"""Stage `curate`: the raw shards of one part in, kept and rejected rows out."""

import sys

from distillery.core.run import Run
from distillery.data.curation.asked import asked_scores, unjudged_lines
from distillery.data.curation.curate import curate_shard, finish_part, shard_paths, shards_of_part
from distillery.data.curation.filters import build_filters
from distillery.data.curation.garbled import garbled_lines
from distillery.data.curation.told import summary
from distillery.data.curation.unreadable import unreadable_lines
from distillery.data.ingest.refused import read_refused
from distillery.data.inspector import Inspector
from distillery.params import Params
from distillery.stage import In, Out, stage


@stage(reads=["data.parts", "curate"])
def curate(params: Params, run: Run, part: int, raw: In, curated: Out) -> None:
    """Decode every image, apply the filters and write what is kept and what is not, and why."""
    tars = shards_of_part(raw, part, len(params.data.parts))
    if not tars:
        print(
            "the raw data has fewer shards than data.parts has parts, so this one stays empty; "
            "lower ingest.shard_size_samples for parts that work side by side",
            file=sys.stderr,
        )
    filters = build_filters(**dict(params.curate))
    # A blocklist's contents are not in the fingerprint, so its shards are not picked up again.
    may_reuse = not params.curate.blocklists
    with run.progress(len(tars), unit="shard") as progress, Inspector() as inspector:
        for tar in tars:
            paths = shard_paths(curated, tar)
            named = {paths.kept: f"kept-{tar.stem}", paths.rejected: f"rejected-{tar.stem}"}
            if not (may_reuse and all(run.reuse(path, name) for path, name in named.items())):
                curate_shard(tar, paths, filters, inspector)
                for path, name in named.items():
                    run.finish(path, name)
            progress.update()
    # What was refused before it was downloaded is counted once, in the first part.
    counts = finish_part(curated, read_refused(raw) if part == 0 else {})
    asked = asked_scores({"curate": dict(params.curate)})
    unjudged = unjudged_lines(counts["unscored"], counts["kept"], asked)
    unread = unreadable_lines(curated, counts["input"])
    print(summary(counts), file=sys.stderr)
    for line in [*unread, *garbled_lines(curated, counts["kept"]), *unjudged]:
        print(line, file=sys.stderr)


if __name__ == "__main__":
    curate.main()
