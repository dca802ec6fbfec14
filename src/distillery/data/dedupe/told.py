"""What is left of the images, in words.

In: a finished selection. Out: `20 in, 18 kept, 2 gone: 2 too_small; 13 train, 2 val, 3 test`.
"""

from pathlib import Path

import pyarrow.parquet as pq

from distillery.core.artifacts import read_json
from distillery.data.curation.told import summary
from distillery.data.dedupe.selection import FUNNEL
from distillery.data.loader import SELECTION, SPLITS

__computes__ = False  # text on the terminal


def told(selection: Path) -> str:
    """Of the funnel and of every split."""
    splits = pq.read_table(selection / SELECTION, columns=["split"])["split"].to_pylist()
    sizes = ", ".join(f"{splits.count(name):,} {name}" for name in SPLITS)
    return f"{summary(read_json(selection / FUNNEL))}; {sizes}"
