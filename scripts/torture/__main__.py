"""`python -m torture --minutes N`: all ordeals, one table; scripts/torture.sh calls it."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torture.crowd import crowd
from torture.flips import damage_files
from torture.front_ends import kill_front_ends, run_twice
from torture.kills import fill_disk, stop_stages
from torture.rerun import clock_set_back, read_only, staleness
from torture.result import Result, as_table
from torture.small_project import SmallProject


def main() -> int:
    """Parse the command line, make the project, run the ordeals; 1 if anything was lost."""
    parser = argparse.ArgumentParser(prog="scripts/torture.sh", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, help="keep the project there, or go on with it")
    parser.add_argument("--out", type=Path, help="file for the table")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int(time.time()) % 100_000
    print(f"seed {seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        results = torture((options.folder or Path(folder)) / "project", options.minutes * 60, seed)
    table = f"Seed {seed}, {options.minutes:g} minutes.\n\n{as_table(results)}"
    print(table)
    if options.out:
        options.out.write_text(table + "\n")
    return int(any(row.lost for row in results))


def torture(root: Path, seconds: float, seed: int) -> list[Result]:
    """The ordeals; those with a share of the time stop then, the others take what they take."""
    project = SmallProject(root)
    both = [project, project.copy(root.with_name("copy"))]
    rng = random.Random(seed)
    ordeals: tuple[Callable[[], Result | list[Result]], ...] = (
        lambda: stop_stages(both, seed, 0.5 * seconds),
        lambda: kill_front_ends(project, rng, 0.12 * seconds),
        lambda: damage_files(both, seed, 0.1 * seconds),
        lambda: crowd(project, 0.2 * seconds),
        lambda: fill_disk(project, rng, 0.08 * seconds),
        lambda: run_twice(project),
        lambda: read_only(project),
        lambda: clock_set_back(project),
        lambda: staleness(project),
    )
    results = []
    for ordeal in ordeals:
        started, found = time.monotonic(), ordeal()
        rows = found if isinstance(found, list) else [found]
        took = f"{time.monotonic() - started:.0f} s"
        for row in rows:
            print(f"{row.name}: {row.tried} tried, {len(row.lost)} lost, {took}", file=sys.stderr)
        results += rows
    return results


if __name__ == "__main__":
    sys.exit(main())
