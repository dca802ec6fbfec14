"""What the scenes teacher can do, measured: the figures of its model card.

In: the teacher's folder. Out: a dictionary of named figures. `python -m
distillery.scenes_teacher.measure FOLDER` prints it as JSON, and records the CLIP model's probe in
the folder. Scenes come from a seed that no component was trained on; every sample's noise comes
from its own seed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from distillery.core.progress import track
from distillery.data.scenes.draw import Scene
from distillery.metrics.edges import edges, match_edges
from distillery.metrics.miou import mean_iou
from distillery.metrics.reader import METRICS, read_segmentation, recall
from distillery.models.load import load_network
from distillery.scenes_teacher.controlnet import CONDITIONS
from distillery.scenes_teacher.pool import unit_range
from distillery.scenes_teacher.probe import pick_scenes, record_probe
from distillery.teacher.examine import require_teacher

BATCH = 32


def generate(pipeline, scenes: list[Scene], kind: str | None, guidance: float, num_steps: int):
    """Images (N, H, W, 3) of the scenes' captions, controlled by their maps where `kind` is set."""
    images = []
    for start in track(range(0, len(scenes), BATCH), f"generate {kind or 'text'}"):
        batch = scenes[start : start + BATCH]
        seeds = range(start, start + len(batch))
        options = {"image": [Image.fromarray(CONDITIONS[kind](s)) for s in batch]} if kind else {}
        images += list(
            pipeline(
                [scene.caption for scene in batch],
                num_inference_steps=num_steps,
                guidance_scale=guidance,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
                **options,
            ).images
        )
    return np.rint(np.stack(images) * 255).astype(np.uint8)


def mean_recalls(images: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """The reader's metrics, averaged over images."""
    values = [recall(image, s.caption) for image, s in zip(images, scenes, strict=True)]
    return {name: float(np.mean([value[name] for value in values])) for name in METRICS}


def edge_f1(images: np.ndarray, scenes: list[Scene]) -> float:
    """F1 of Canny edges against those of the scenes' own images, averaged over images."""
    pairs = zip(images, scenes, strict=True)
    return float(np.mean([match_edges(edges(a), edges(scene.image))[0] for a, scene in pairs]))


def miou(images: np.ndarray, scenes: list[Scene]) -> float:
    """`metrics.miou` of what the reader sees against the scenes' segmentation, over images."""
    seen = np.stack([read_segmentation(image) for image in images])
    return float(np.mean(mean_iou(seen, np.stack([scene.segmentation for scene in scenes]))))


@torch.no_grad()
def measure_vae(folder: Path, scenes: list[Scene]) -> dict[str, float]:
    """What the VAE alone loses: PSNR, edges and the reader's ceiling."""
    vae = load_network(AutoencoderKL.from_pretrained, folder / "vae")
    images = np.stack([scene.image for scene in scenes])
    decoded = []
    for chunk in torch.from_numpy(unit_range(images)).split(BATCH):
        decoded.append(vae.decode(vae.encode(chunk).latent_dist.mode()).sample)
    pixels = torch.cat(decoded).permute(0, 2, 3, 1).numpy()
    restored = np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    errors = ((restored.astype(float) - images) ** 2).mean(axis=(1, 2, 3))
    return {
        "psnr_db": float(np.mean(10 * np.log10(255**2 / errors))),
        "edge_f1": edge_f1(restored, scenes),
        "miou": miou(restored, scenes),
        **mean_recalls(restored, scenes),
    }


def measure(folder: Path, *, num_samples: int, guidance: float, num_steps: int) -> dict:
    """All figures; `num_samples` images of each kind."""
    singles, doubles = pick_scenes(num_samples, 1), pick_scenes(num_samples, 2)
    require_teacher(folder)  # the pipeline would draw missing weights at random
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    report = {"num_samples": num_samples, "guidance": guidance, "num_steps": num_steps}
    report["vae"] = measure_vae(folder, pick_scenes(num_samples, None))
    report["clip"] = record_probe(folder / "clip")
    for name, scenes in (("one_object", singles), ("two_objects", doubles)):
        images = generate(pipeline, scenes, None, guidance, num_steps)
        report[name] = mean_recalls(images, scenes)
    for kind in (k for k in CONDITIONS if (folder / f"controlnet_{k}").is_dir()):
        report[kind] = measure_control(pipeline, folder, kind, guidance, num_steps, num_samples)
    return report


def measure_control(pipeline, folder: Path, kind: str, guidance, num_steps, num_samples) -> dict:
    """How far a ControlNet is followed, on scenes of one or two objects."""
    scenes = pick_scenes(num_samples, None)
    controlled = StableDiffusionControlNetPipeline(
        **pipeline.components,
        controlnet=load_network(ControlNetModel.from_pretrained, folder / f"controlnet_{kind}"),
        requires_safety_checker=False,
    )
    controlled.set_progress_bar_config(disable=True)
    images = generate(controlled, scenes, kind, guidance, num_steps)
    return {
        "edge_f1": edge_f1(images, scenes),
        "miou": miou(images, scenes),
        **mean_recalls(images, scenes),
    }


def main() -> None:
    """Command line: folder, number of samples, threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-samples", type=int, default=192)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--num-steps", type=int, default=20)
    parser.add_argument("--num-threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.num_threads)
    report = measure(
        options.folder,
        num_samples=options.num_samples,
        guidance=options.guidance,
        num_steps=options.num_steps,
    )
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
