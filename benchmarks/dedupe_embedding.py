"""What an embedding adds to the search for near-duplicates, and what it costs.

Recall and precision as in `dedupe`, without and with an embedding, of the edits there and of larger
ones; the shares of pairs that it proposes; processor time of the search among invented vectors, and
of larger crops in what it proposes.

Usage: python benchmarks/dedupe_embedding.py [--network data/scenes-sd/clip] [--photos FOLDER]
       [--num_scenes 150] [--num_vectors 20000] [--out docs/results/data/dedupe_embedding.json]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch
from dedupe import Set, measure, measure_negatives, photos, random_sketches, scenes
from edits import EDITS, FURTHER_EDITS
from results import keep

from distillery.data.dedupe.crops import best_crops
from distillery.data.dedupe.embedding import Embedding
from distillery.data.dedupe.near import near_duplicates
from distillery.data.dedupe.rows import Rows, make_rows
from distillery.metrics.features import load_extractor

SIMILARITIES = (0.8, 0.9, 0.95)
VECTOR_SIZE = 512  # of CLIP ViT-B


class Counted(Embedding):
    """Counts pairs among which it looks, and those it proposes."""

    asked = proposed = 0

    def pairs(self, rows: Rows, source, is_new: np.ndarray) -> Iterator[np.ndarray]:
        Counted.asked += len(rows) * (len(rows) - 1) // 2
        for block in super().pairs(rows, source, is_new):
            Counted.proposed += len(block)
            yield block


def searching(network, similarity: float):
    """`near_duplicates` with an embedding; equal names stand for other images each time."""

    def search(*arguments) -> list[tuple[int, int]]:
        with tempfile.TemporaryDirectory() as folder:
            embedding = Counted(network, "vectors", similarity, Path(folder))
            return near_duplicates(*arguments, embedding=embedding)

    return search


def compare(images: Set, network) -> dict:
    """All edits without and at the usual similarity, the larger ones at others too."""
    found = {"none": measure(*images, EDITS | FURTHER_EDITS)}
    for similarity in SIMILARITIES:
        Counted.asked = Counted.proposed = 0
        edits = EDITS | FURTHER_EDITS if similarity == 0.9 else FURTHER_EDITS
        found[str(similarity)] = measure(*images, edits, searching(network, similarity))
        found[str(similarity)]["proposed_share"] = round(Counted.proposed / Counted.asked, 5)
    return found


class Invented:
    """Vectors in place of images, and a network that takes them as they are."""

    def __init__(self, num: int) -> None:
        self.vectors = np.random.default_rng(0).normal(size=(num, VECTOR_SIZE))

    def images(self, rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
        yield from ((place, self.vectors[i]) for place, i in enumerate(rows.numbers))

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def prepared_features(self, prepared: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(prepared)


def measure_search(num: int) -> dict:
    """Processor seconds of the search among all vectors, and of that for 1% new ones."""
    columns = {
        "key": pa.array(map(str, range(num))), "url": pa.array([""] * num),
        "sha256": pa.array(f"{i:064x}" for i in range(num)), "phash": pa.array(["0"] * num),
        "number": pa.array(range(num)),
    }  # fmt: skip
    zeros = ("part", "shard", "width", "height", "num_bytes")
    rows = make_rows(pa.table(columns | {name: pa.array(np.zeros(num, int)) for name in zeros}))
    invented, found = Invented(num), {"num_vectors": num, "size": VECTOR_SIZE}
    with tempfile.TemporaryDirectory() as folder:
        embedding = Embedding(invented, "vectors", 0.9, Path(folder))
        for name, is_new in (
            ("making files", np.zeros(num, bool)),
            ("all new", np.ones(num, bool)),
            ("1% new", np.arange(num) >= num - num // 100),
        ):
            start = time.process_time()
            assert not list(embedding.pairs(rows, invented, is_new))
            found[name] = {"cpu_s": round(time.process_time() - start, 2)}
    whole_s = found["all new"]["cpu_s"]
    found["a million, predicted"] = {"cpu_s": round(whole_s * (10**6 / num) ** 2)}
    return found


def measure_crops(num: int) -> float:
    """Processor milliseconds of a proposed pair."""
    sketches = random_sketches(2 * num, np.random.default_rng(0))
    start = time.process_time()
    best_crops(sketches, np.arange(2 * num).reshape(-1, 2))
    return round((time.process_time() - start) / num * 1e3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="data/scenes-sd/clip")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--num_scenes", type=int, default=150)
    parser.add_argument("--num_vectors", type=int, default=20_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    found = {"search": measure_search(arguments.num_vectors), "crops_ms": measure_crops(1000)}
    network = load_extractor(arguments.network, None, "cpu")
    found["network"] = {"name": arguments.network, "fingerprint": network.fingerprint}
    sets = {"scenes": scenes(arguments.num_scenes)}
    if arguments.photos:
        sets["photos"] = photos(arguments.photos)
    for name, images in sets.items():
        found[name] = compare(images, network)
    found["hard negatives"] = measure_negatives(60, searching(network, 0.9))
    keep(found, arguments.out, ("cv2", "numpy", "torch", "transformers"))


if __name__ == "__main__":
    main()
