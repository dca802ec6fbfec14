"""Peak memory and time of `distillery evaluate` on many images, and its FID and KID against memory.

Makes two folders of 512 px JPEGs, of which `--distinct` differ and the others are hard links, and a
vision model of random weights. Runs the command as a user does, in a process of its own, and prints
its peak resident memory, its time, and how far FID and KID are from those of all features held in
memory, computed here by the plain formulas.

Usage: python benchmarks/evaluate_memory.py FOLDER [--images 30000] [--distinct 2000] [--side 512]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import scipy.linalg
import torch

from distillery.metrics.features import Extractor, load_extractor
from distillery.metrics.kid import kid

NUM_BLOCKS = 16
BATCH = 64


def make_images(folder: Path, num_images: int, num_distinct: int, side_px: int, seed: int) -> None:
    """JPEGs of coloured clouds with grain, about 60 KB each at 512 px."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(num_images):
        path = folder / f"{i:06d}.jpg"
        if i >= num_distinct:
            os.link(folder / f"{i % num_distinct:06d}.jpg", path)
            continue
        cells = generator.integers(3, 24)
        clouds = generator.integers(0, 256, (cells, cells, 3)).astype(np.float32)
        image = cv2.resize(clouds, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        grain = cv2.randn(np.empty((side_px, side_px, 3), np.float32), 0, 4)
        cv2.imwrite(str(path), np.clip(image + grain, 0, 255).astype(np.uint8))


def make_network(folder: Path, width: int) -> None:
    """A vision transformer of random weights with `width` features."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=4, image_size=224, patch_size=32,
    )  # fmt: skip
    CLIPVisionModel(config).save_pretrained(folder)
    processor = {"size": 224, "crop_size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def run_command(images: Path, reference: Path, network: Path, out: Path) -> tuple[float, float]:
    """(peak resident GiB, wall seconds) of the command."""
    options = {"--images": images, "--reference": reference, "--extractor": network, "--out": out}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-m", "distillery.cli", "evaluate", *words]
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, seconds


def features_in_memory(folder: Path, extractor: Extractor, num_distinct: int) -> np.ndarray:
    """Features [n, d] of all names; a link has its original's."""
    paths = sorted(folder.iterdir())
    rows = []
    for start in range(0, min(num_distinct, len(paths)), BATCH):
        part = paths[start : min(start + BATCH, num_distinct)]
        images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in part]
        rows.append(extractor.image_features(np.stack(images)))
    distinct = np.concatenate(rows)
    return distinct[np.arange(len(paths)) % len(distinct)]


def plain_fid(x: np.ndarray, y: np.ndarray) -> float:
    """Of all features at once, by a general matrix square root."""
    (a, b), shift = (np.cov(side, rowvar=False) for side in (x, y)), x.mean(0) - y.mean(0)
    return float(shift @ shift + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real))


def plain_kid(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over blocks."""
    parts = zip(np.array_split(x, NUM_BLOCKS), np.array_split(y, NUM_BLOCKS), strict=True)
    return float(np.mean([kid(a, b, paired=True) for a, b in parts]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--distinct", type=int, default=2_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--width", type=int, default=256)
    given = parser.parse_args()
    folders, network = [given.folder / name for name in "ab"], given.folder / "network"
    for seed, folder in enumerate(folders):
        make_images(folder, given.images, given.distinct, given.side, seed)
    make_network(network, given.width)
    gib, seconds = run_command(*folders, network, given.folder / "metrics.json")
    measured = json.loads((given.folder / "metrics.json").read_text())["metrics"]
    extractor = load_extractor(str(network), None, "cpu")
    sides = [features_in_memory(folder, extractor, given.distinct) for folder in folders]
    expected = {"fid": plain_fid(*sides), "kid": plain_kid(*sides)}
    decoded = 2 * given.images * given.side**2 * 3 / 2**30
    print(f"{given.images} pairs of {given.side} px ({decoded:.1f} GiB decoded)")
    print(
        f"peak resident memory {gib:.2f} GiB, {seconds:.0f} s, {seconds / given.images:.4f} s/pair"
    )
    for name, value in expected.items():
        print(f"{name} {measured[name]['value']:.6g}, in memory {value:.6g}")


if __name__ == "__main__":
    main()
