"""What needs the models themselves: prediction distance, the export gate, VAE reconstructions.

In: a teacher folder and a student folder. Out: estimates and images. Not here: metrics of images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel

from distillery.export import assert_same_output
from distillery.metrics.evaluation import Records
from distillery.metrics.intervals import bootstrap_mean
from distillery.metrics.measure import Measured
from distillery.metrics.prediction import SETTINGS, make_probe, relative_distances
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.run import Run
from distillery.samples import batches
from distillery.sampling import load_unet, seed_folder
from distillery.teacher.load import decode_latents, encode_images, load_teacher

EXPORT_TOLERANCE = 1e-4
BATCH_SIZE = 64


def prediction_distances(
    run: Run,
    teacher_folder: Path,
    model: Path,
    seeds: Sequence[int],
    records: Records,
    device: torch.device,
    *,
    num_records: int,
    plan_seed: int,
    num_slots: int,
    num_bootstrap: int,
) -> dict[int, Measured]:
    """{seed: {"prediction_distance": ...}} of a student; each seed's export is checked first."""
    teacher = load_teacher(teacher_folder, device, torch.float32)
    real, captions, keys = (
        part[:num_records] for part in (records.real, records.captions, records.keys)
    )
    probe = make_probe(teacher, real, captions, keys, plan_seed, num_slots)
    settings = {**SETTINGS, "num_slots": num_slots, "interval": "bootstrap over records"}
    found = {}
    num_rows = len(probe.noisy) * (1 + len(seeds))
    with run.progress(num_rows, unit="prediction", what="predictions") as bar:
        expected = probe.ask(teacher.unet, bar.update)
        for seed in seeds:
            unet = load_unet(seed_folder(model, seed, seeds), device)
            check_export(unet)
            distances = relative_distances(probe.ask(unet, bar.update), expected, num_slots)
            estimate = bootstrap_mean(distances, num_bootstrap)
            found[seed] = {"prediction_distance": (estimate, settings)}
    return found


def check_export(unet: UNet2DConditionModel) -> None:
    """The dense-merged form of a low-rank student must say the same, or DistilleryError."""
    if not isinstance(unet, LowRankUNet2DConditionModel):
        return
    config, generator = unet.config, torch.Generator().manual_seed(0)
    side = config.sample_size
    inputs = {
        "sample": torch.randn(2, config.in_channels, side, side, generator=generator),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(2, 8, config.cross_attention_dim, generator=generator),
    }
    inputs = {name: value.to(unet.device) for name, value in inputs.items()}
    assert_same_output(unet, unet.to_dense(), inputs, EXPORT_TOLERANCE)


def reconstruct(teacher_folder: Path, images: np.ndarray, device: torch.device) -> np.ndarray:
    """uint8 images [n, H, W, 3] through the teacher's VAE and back."""
    teacher = load_teacher(teacher_folder, device, torch.float32)
    parts = batches(images, BATCH_SIZE)
    return np.concatenate([decode_latents(teacher, encode_images(teacher, p)) for p in parts])
