"""Curation of pictures against the bare decoding of the same bytes, in processor time.

Curates a raw folder (as `ingest` writes it) without filters, and decodes every image of it
in this process. Prints seconds of the processor of both, the decoding worker included.

Usage: python benchmarks/curation.py RAW [--out FILE]
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
from results import keep

from distillery.core.shards import list_shards
from distillery.data.curation.curate import curate_shard, shard_paths
from distillery.data.images import decode_rgb
from distillery.data.ingest.readers.tar import read_shard
from distillery.data.inspector import Inspector


def cpu_s() -> float:
    """Of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tars = list_shards(arguments.raw, "tar")
    images = [sample.image for tar in tars for sample in read_shard(tar) if sample.image]
    start = time.process_time()
    for image in images:
        decode_rgb(image)
    decoded_s = time.process_time() - start
    with tempfile.TemporaryDirectory() as folder:
        start = cpu_s()
        with Inspector() as inspector:
            inspector.inspect(images[0])  # the worker's start is not curation
            started_s = time.process_time()
            for tar in tars:
                curate_shard(tar, shard_paths(Path(folder), tar), [], inspector)
        curated_s = cpu_s() - start
    found = {
        "num_images": len(images),
        "decoding, cpu s": round(decoded_s, 2),
        "curation with the worker's start, cpu s": round(curated_s, 2),
        "of it in this process, cpu s": round(time.process_time() - started_s, 2),
        "ratio": round(curated_s / decoded_s, 2),
    }
    keep(found, arguments.out, ("cv2", "numpy"))


if __name__ == "__main__":
    main()
