"""Filters on the columns of a list of URLs, against a bare DuckDB scan of the same conditions.

Writes a parquet list of --num_rows rows with synthetic scores, and prints rows per second of: a
bare scan that counts the refused rows, `judge_table` (verdicts of all rows), `read_urls` (the kept
rows as objects too), and the same filters on rows that are objects.

Usage: python benchmarks/column_filters.py [--num_rows 4000000] [--out FILE]
"""

import argparse
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from results import keep

from distillery.data.curation.columns import column_filters, judge_table
from distillery.data.curation.filters import COLUMN_FILTERS, build_filters
from distillery.data.ingest.readers.urls import _judged, read_urls
from distillery.data.ingest.sample import COLUMN_ALIASES

SETTINGS = {
    "blocklists": [],
    "max_punsafe": 0.5,
    "max_pwatermark": 0.8,
    "min_aesthetic": 6.0,
    "min_similarity": 0.28,
    "stock_hosts": ["shutterstock.com", "alamy.com", "gettyimages.com"],
}


def write_list(path: Path, num_rows: int) -> None:
    """About 4% of the rows pass; the scores are random numbers."""
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, make_rows(rng, 0, 1).schema) as writer:
        for start in range(0, num_rows, 2**18):
            writer.write_table(make_rows(rng, start, min(2**18, num_rows - start)))


def make_rows(rng: np.random.Generator, start: int, num: int) -> pa.Table:
    hosts = np.array(["img.example.org", "cdn.shop.example", "c8.alamy.com", "photos.example"])
    picked = hosts[rng.integers(0, 4, num)]
    numbers = range(start, start + num)
    urls = [f"https://{host}/p/{i}.jpg" for host, i in zip(picked, numbers, strict=True)]
    return pa.table(
        {
            "URL": urls,
            "TEXT": [f"a caption of some words, number {i}" for i in numbers],
            "punsafe": rng.beta(0.5, 4, num).astype(np.float32),
            "pwatermark": rng.beta(1, 3, num).astype(np.float32),
            "aesthetic": rng.normal(5.2, 0.7, num).astype(np.float32),
            "similarity": rng.normal(0.29, 0.03, num).astype(np.float32),
        }
    )


def bare_scan(table: Path, filters: list) -> int:
    names = ", ".join(pq.read_schema(table).names)
    condition = " OR ".join(f"({rule.condition()})" for rule in filters)
    query = f"SELECT count(*) FROM (SELECT {names} FROM read_parquet(?)) WHERE {condition}"
    return duckdb.execute(query, [str(table)]).fetchone()[0]


def rate(num_rows: int, function: Callable[[], object], repeats: int = 3) -> float:
    """Rows per second of the fastest repeat, by the clock."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return round(num_rows / min(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_rows", type=int, default=4_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    num_rows, refused = arguments.num_rows, Counter()
    filters = column_filters(build_filters(COLUMN_FILTERS, **SETTINGS))
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "list.parquet"
        write_list(table, num_rows)
        for _ in range(2):  # into the page cache
            bare_scan(table, filters)
        few, small = min(num_rows, 50_000), Path(folder) / "small.parquet"
        write_list(small, few)
        found = {
            "num_rows": num_rows,
            "bare scan, rows/s": rate(num_rows, lambda: bare_scan(table, filters)),
            "verdicts, rows/s": rate(num_rows, lambda: judge_table(table, filters, COLUMN_ALIASES)),
            "kept rows as objects, rows/s": rate(
                num_rows, lambda: sum(1 for _ in read_urls([table], filters, refused)), 1
            ),
            "filters on objects, rows/s": rate(
                few, lambda: sum(1 for _ in _judged(small, filters, Counter())), 1
            ),
        }
    found["verdicts / bare scan"] = round(found["verdicts, rows/s"] / found["bare scan, rows/s"], 2)
    found["kept"] = num_rows - refused.total()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found["peak_rss_gib"] = round(peak_bytes / 2**30, 2)
    keep(found, arguments.out, ("duckdb", "pyarrow"))


if __name__ == "__main__":
    main()
