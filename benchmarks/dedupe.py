"""Near-duplicates: recall per edit, false merges, and the search among a million.

Photos are those of an img2dataset folder; scenes are drawn. Every picture is edited in each way
that `edits` knows; recall is the share of edited copies found with their original. Precision counts
a pair of different photos, or of scenes of different contents, as wrong; with a Wilson interval of
95%. Hard negatives share a background, a template with other text, or almost no contrast. With
--num_hashes, processor time and peak memory of the search for both kinds of pairs, 1% planted
duplicates, and of the same searches where 1% of the pictures are new and the others were searched
before.

Usage: python benchmarks/dedupe.py [--photos FOLDER] [--num_scenes 150] [--num_hashes 1000000]
       [--out docs/results/data/dedupe.json]
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from edits import EDITS, Edit, Image, resized
from results import keep

from distillery.data.dedupe.candidates import hamming_pairs, new_pairs
from distillery.data.dedupe.clusters import Clusters
from distillery.data.dedupe.near import mirrored_pairs, near_duplicates
from distillery.data.dedupe.phash import hash_luma, small_luma
from distillery.data.dedupe.rows import Rows, make_rows
from distillery.data.dedupe.thumbnails import thumbnail
from distillery.data.dedupe.windows import SKETCH_BYTES, best_windows, sketch
from distillery.data.images import decode_rgb
from distillery.data.ingest.readers import read_source
from distillery.data.scenes.draw import draw_scene

MAX_HAMMING, MIN_SSIM = 10, 0.9
PHOTO_PX = 256
Same = Callable[[int, int], bool]
Set = tuple[list[Image], Same]


class Views:
    """Sketches and thumbnails of images in memory."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images
        self._thumbnails = [thumbnail(image) for image in images]
        self._lumas = [small_luma(image) for image in images]
        self._sketches = [
            np.frombuffer(sketch(image, luma), np.uint8)
            for image, luma in zip(images, self._lumas, strict=True)
        ]
        columns = [
            {
                "key": str(i), "part": 0, "shard": 0, "number": i, "url": "",
                "sha256": f"{i:064x}", "phash": hash_luma(luma), "width": image.shape[1],
                "height": image.shape[0], "num_bytes": 0,
            }
            for i, (luma, image) in enumerate(zip(self._lumas, images, strict=True))
        ]  # fmt: skip
        self.rows = make_rows(pa.Table.from_pylist(columns))

    def sketches(self, rows: Rows) -> np.ndarray:
        return np.stack([self._sketches[i] for i in rows.numbers])

    def thumbnails(self, rows: Rows) -> np.ndarray:
        return np.stack([self._thumbnails[i] for i in rows.numbers])

    def images(self, rows: Rows) -> Iterator[tuple[int, Image]]:
        yield from ((place, self._images[i]) for place, i in enumerate(rows.numbers))


def find(images: Sequence[Image], search: Callable) -> Clusters:
    views, clusters = Views(images), Clusters(len(images))
    for i, j in search(views.rows, views, MAX_HAMMING, MIN_SSIM):
        clusters.join(i, j)
    return clusters


def wilson(good: int, total: int) -> list[float]:
    """The interval of 95% of a share (Wilson 1927)."""
    if not total:
        return [0.0, 1.0]
    z, share = 1.959964, good / total
    centre = share + z**2 / (2 * total)
    spread = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    scale = 1 + z**2 / total
    return [round(float((centre + sign * spread) / scale), 4) for sign in (-1, 1)]


def share(good: int, total: int) -> dict:
    value = round(good / total, 4) if total else None
    return {"value": value, "ci": wilson(good, total), "n": total}


def measure(
    images: Sequence[Image], same: Same, edits: Mapping[str, Edit] = EDITS,
    near: Callable = near_duplicates,
) -> dict:  # fmt: skip
    """Recall of each edit, and precision over all pairs that became one cluster."""
    num, rng, recall, right, wrong = len(images), np.random.default_rng(0), {}, 0, 0
    for name, edit in edits.items():
        edited = [edit(image, rng) for image in images]
        roots = find([*images, *edited], mirrored_pairs if name == "mirrored" else near).roots()
        found = int((roots[:num] == roots[num:]).sum())
        recall[name] = share(found, num)
        for root in np.unique(roots):
            shown = np.flatnonzero(roots == root)[1:] % num
            right += sum(same(int(root), int(i)) for i in shown)
            wrong += sum(not same(int(root), int(i)) for i in shown)
    return {"recall": recall, "precision": share(right, right + wrong)}


def hard_negatives(num: int) -> Iterator[tuple[str, list[Image]]]:
    """Groups of pictures none of which is another."""
    rng = np.random.default_rng(1)
    ground = cv2.resize(rng.integers(60, 200, (6, 6, 3)).astype(np.uint8), (256, 256))
    placed = []
    for k in range(num):
        image = ground.copy()
        centre = tuple(int(x) for x in rng.integers(60, 196, 2))
        colour = tuple(int(x) for x in rng.integers(0, 256, 3))
        cv2.circle(image, centre, 30 + k % 20, colour, -1, cv2.LINE_AA)
        placed.append(image)
    yield "one background, another object", placed
    pages = []
    for _ in range(num):
        page = np.full((256, 256, 3), 250, np.uint8)
        page[:40] = (40, 60, 120)
        for line in range(8):
            words = "".join(rng.choice(list("abcdefghijklmnop  "), 14))
            place = (12, 70 + 24 * line)
            cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20,) * 3, 2)
        pages.append(page)
    yield "one template, another text", pages
    faint = [
        np.clip(128 + cv2.resize(rng.normal(0, 3, (9, 9, 3)), (256, 256)), 0, 255).astype(np.uint8)
        for _ in range(num)
    ]
    yield "low contrast", faint


def measure_negatives(num: int, near: Callable = near_duplicates) -> dict:
    """Pairs of each group that were merged, of all its pairs."""
    merged = {}
    for name, images in hard_negatives(num):
        roots = find(images, near).roots()
        counts = np.unique(roots, return_counts=True)[1]
        merged[name] = share(int((counts * (counts - 1) // 2).sum()), num * (num - 1) // 2)
    return merged


def measure_search(num_hashes: int) -> dict:
    """Processor seconds and peak memory of the three searches, 1% planted duplicates."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, num_hashes, dtype=np.uint64)
    copies, num = rng.integers(0, num_hashes, (2, num_hashes // 100)), num_hashes // 100
    flips = np.uint64(1) << rng.integers(0, 64, (num, 8), dtype=np.uint64)
    hashes[copies[1]] = hashes[copies[0]] ^ np.bitwise_xor.reduce(flips, axis=1)
    mirrored = rng.permutation(hashes)
    found = {"num_hashes": num_hashes}
    for name, others in (("hashes", None), ("mirrored hashes", mirrored)):
        start = time.process_time()
        pairs = sum(len(block) for block in hamming_pairs(hashes, MAX_HAMMING, others))
        found[name] = {"pairs": pairs, "cpu_s": round(time.process_time() - start, 1)}
    start = time.process_time()
    sketches = random_sketches(num_hashes, rng)
    sketches[copies[1]] = sketches[copies[0]]
    made_s = time.process_time() - start
    pairs = len(best_windows(sketches))
    cpu_s = time.process_time() - start - made_s
    found["windows"] = {"pairs": pairs, "cpu_s": round(cpu_s, 1)}
    found["1% new"] = measure_growth(hashes, mirrored, sketches)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"peak_rss_gib": round(peak_bytes / 2**30, 2)}


def measure_growth(hashes: np.ndarray, mirrored: np.ndarray, sketches: np.ndarray) -> dict:
    """Processor seconds of the searches for pairs with one of the last 1%."""
    is_new = np.arange(len(hashes)) >= len(hashes) - len(hashes) // 100
    searches = {
        "hashes": lambda: new_pairs(hashes, MAX_HAMMING, is_new),
        "mirrored hashes": lambda: new_pairs(hashes, MAX_HAMMING, is_new, mirrored),
        "windows": lambda: [best_windows(sketches, is_new)],
    }
    found = {}
    for name, search in searches.items():
        start = time.process_time()
        pairs = sum(len(block) for block in search())
        found[name] = {"pairs": pairs, "cpu_s": round(time.process_time() - start, 1)}
    return found


def random_sketches(num: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (num, 1152): smooth noise whose means and contrasts are spread as photos' are."""
    sketches = np.empty((num, SKETCH_BYTES), np.uint8)
    for start in range(0, num, 2**14):
        count = min(2**14, num - start)
        rough = rng.normal(size=(count, 8, 8)).astype(np.float32) * rng.gamma(9, 5, (count, 1, 1))
        luma = np.repeat(np.repeat(rough, 4, 1), 4, 2) + rng.normal(118, 42, (count, 1, 1))
        colour = rng.normal(128, 8, (count, 2, 1)) + rng.normal(0, 6, (count, 2, 64))
        both = np.hstack([luma.reshape(count, -1), colour.reshape(count, -1)])
        sketches[start : start + count] = both.clip(0, 255)
    return sketches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--num_scenes", type=int, default=150)
    parser.add_argument("--num_hashes", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = {}
    if arguments.photos:
        found["photos"] = measure(*photos(arguments.photos))
    if arguments.num_scenes:
        found["scenes"] = measure(*scenes(arguments.num_scenes))
        found["hard negatives"] = measure_negatives(60)
    if arguments.num_hashes:
        found["search"] = measure_search(arguments.num_hashes)
    keep(found, arguments.out, ("cv2", "numpy"))


def photos(folder: Path) -> Set:
    """Photos, and whether two of them, or of their edited copies that follow, are one."""
    images = [decode_rgb(s.image) for s in read_source("webdataset", folder)]
    images = [resized(image, PHOTO_PX / min(image.shape[:2])) for image in images]
    return images, lambda i, j: i % len(images) == j % len(images)


def scenes(num: int) -> Set:
    """Scenes, and whether two of them, or of their edited copies, hold the same."""
    drawn = [draw_scene(1, index, 64) for index in range(num)]
    contents = [describe(scene) for scene in drawn]
    return [scene.image for scene in drawn], lambda i, j: contents[i % num] == contents[j % num]


def describe(scene) -> tuple:
    """What a scene holds, places left out: a crop moves them."""
    things = ((item.shape, item.colour, item.size, item.texture) for item in scene.objects)
    return (scene.background, *things)


if __name__ == "__main__":
    main()
