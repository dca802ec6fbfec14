"""Near-duplicates against ImageHash's pHash, and the candidate search against all pairs.

Draws scenes, plants one JPEG (quality 30 to 95) and one resized copy of a tenth of them, and prints
for both: recall and precision of the pairs found at the same Hamming distance, and microseconds
per image for the hash. Precision counts a pair of independently drawn scenes as wrong. Then the
processor time of `hamming_pairs` and of comparing all pairs, for random hashes with planted
neighbours.

Usage: python benchmarks/dedupe.py [--num_scenes 1000] [--num_hashes 60000]
Needs the peer: pip install ImageHash
"""

import argparse
import time
from collections.abc import Callable

import cv2
import imagehash
import numpy as np
from PIL import Image

from distillery.data.dedupe.candidates import hamming_pairs
from distillery.data.dedupe.compare import thumbnail
from distillery.data.dedupe.find import Row, near_duplicates
from distillery.data.dedupe.phash import phash, to_integers
from distillery.data.scenes.draw import draw_scene

MAX_HAMMING = 10
MIN_SSIM = 0.9


def planted(num_scenes: int) -> tuple[list[np.ndarray], list[int]]:
    """Images and, for each, the number of the scene it shows."""
    images = [draw_scene(1, index, 64).image for index in range(num_scenes)]
    shows = list(range(num_scenes))
    rng = np.random.default_rng(0)
    for index in range(0, num_scenes, 10):
        quality = int(rng.integers(30, 96))
        data = cv2.imencode(".jpg", images[index], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        side_px = int(rng.integers(40, 100))
        resized = Image.fromarray(images[index]).resize((side_px, side_px), Image.BICUBIC)
        images += [cv2.imdecode(data, cv2.IMREAD_COLOR), np.asarray(resized)]
        shows += [index, index]
    return images, shows


def timed(function: Callable[[], object]) -> tuple[object, float]:
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def all_pairs(hashes: np.ndarray) -> int:
    """Number of pairs within the distance, comparing every hash with every later one."""
    return sum(
        int((np.bitwise_count(hashes[i + 1 :] ^ value) <= MAX_HAMMING).sum())
        for i, value in enumerate(hashes)
    )


def report(name: str, pairs: set[tuple[int, int]], shows: list[int], hash_s: float) -> None:
    expected = {
        (i, j) for i in range(len(shows)) for j in range(i + 1, len(shows)) if shows[i] == shows[j]
    }
    right = len(pairs & expected)
    print(
        f"{name:10} recall {right / len(expected):.4f}  precision {right / max(len(pairs), 1):.4f}"
        f"  pairs {len(pairs)}  hash {1e6 * hash_s / len(shows):.0f} us per image"
    )


def compare_decisions(num_scenes: int) -> None:
    images, shows = planted(num_scenes)
    ours, ours_s = timed(lambda: [phash(image) for image in images])
    theirs, theirs_s = timed(lambda: [imagehash.phash(Image.fromarray(i)) for i in images])
    rows = [
        Row(f"{i:06d}", 0, None, f"{i:064x}", code, image.shape[1], image.shape[0], 0)
        for i, (code, image) in enumerate(zip(ours, images, strict=True))
    ]
    pixels = {row.key: thumbnail(image) for row, image in zip(rows, images, strict=True)}
    found, decide_s = timed(
        lambda: near_duplicates(
            rows, lambda wanted: np.stack([pixels[r.key] for r in wanted]), MAX_HAMMING, MIN_SSIM
        )
    )
    blocks = hamming_pairs(to_integers([str(code) for code in theirs]), MAX_HAMMING)
    proposed = {(int(i), int(j)) for block in blocks for i, j in block}
    report("ours", set(found), shows, ours_s)
    report("ImageHash", proposed, shows, theirs_s)
    print(f"hash time, ours / ImageHash: {ours_s / theirs_s:.2f}; our decisions {decide_s:.1f} s")


def compare_search(num_hashes: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, num_hashes, dtype=np.uint64)
    hashes[::100] ^= np.uint64(0b1011)
    hashes[1::100] = hashes[::100] ^ np.uint64(1 << 40)
    blocks, ours_s = timed(lambda: np.concatenate(list(hamming_pairs(hashes, MAX_HAMMING))))
    num_brute, brute_s = timed(lambda: all_pairs(hashes))
    num_ours = len(np.unique(blocks, axis=0))
    assert num_ours == num_brute, (num_ours, num_brute)
    print(
        f"{num_hashes} hashes, {num_ours} pairs: ours {ours_s:.1f} s, all pairs {brute_s:.1f} s, "
        f"ratio {ours_s / brute_s:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_scenes", type=int, default=1000)
    parser.add_argument("--num_hashes", type=int, default=60_000)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    compare_decisions(arguments.num_scenes)
    compare_search(arguments.num_hashes)


if __name__ == "__main__":
    main()
