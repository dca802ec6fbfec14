"""Whether enough of a list was downloaded, from the stats files of its shards.

In: the stats that `raw` writes. Out: a warning for a shard, an error for the whole, with the counts
by status. Nothing is deleted: a failed row stays in its shard's parquet file.
"""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.core.shards import list_shards
from distillery.data.ingest.resume import stats_file
from distillery.data.ingest.sample import FAILED_TO_DOWNLOAD, SUCCESS

_NUM_NAMED = 6


def has_images(tar: Path) -> bool:
    """Whether a shard counts as finished; one without any image does not, and is warned about.

    That is a broken network more often than a dead list, so the next run tries it again.
    """
    stats = read_json(stats_file(tar))
    if not stats["successes"]:
        print(
            f"ingest: shard {tar.stem}: none of {stats['count']} images was downloaded "
            f"({_name_failures(stats['status_dict'])}); it does not count as finished",
            file=sys.stderr,
        )
    return stats["successes"] > 0


def require_downloads(
    raw: Path, source: Path, max_failed_share: float, *, again: Callable[[Path], object]
) -> None:
    """Raise DistilleryError where more than `max_failed_share` of all rows have failed, or all.

    Before, `again` is called with each shard that is above that share itself.
    """
    statuses: Counter[str] = Counter()
    above = []
    for tar in list_shards(raw, "tar"):
        stats = read_json(stats_file(tar))
        statuses.update(stats["status_dict"])
        if stats["count"] - stats["successes"] > max_failed_share * stats["count"]:
            above.append(tar)
    num_rows, num_good = statuses.total(), statuses[SUCCESS]
    if num_good and num_rows - num_good <= max_failed_share * num_rows:
        return
    for tar in above:
        again(tar)
    raise DistilleryError(
        f"{source}: {num_rows - num_good} of {num_rows} downloads failed "
        f"({_name_failures(statuses)}), ingest.download.max_failed_share is {max_failed_share:g}; "
        "check the network and the list and run again, which repeats the shards above that share, "
        "or raise it"
    )


def _name_failures(statuses: Mapping[str, int]) -> str:
    """`http 404: 12, dns: 3`, the most frequent first."""
    failed = {name: num for name, num in statuses.items() if name != SUCCESS}
    ranked = sorted(failed.items(), key=lambda item: (-item[1], item[0]))
    named = [
        f"{n.removeprefix(FAILED_TO_DOWNLOAD + ': ')}: {num}" for n, num in ranked[:_NUM_NAMED]
    ]
    rest = sum(num for _, num in ranked[_NUM_NAMED:])
    return ", ".join(named + ([f"others: {rest}"] if rest else []))
