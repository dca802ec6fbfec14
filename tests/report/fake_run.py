"""A finished run on disk, with made-up numbers, for tests of the report."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from distillery.artifacts import write_json
from distillery.data.curate import CURATED_SCHEMA, REJECTED_SCHEMA
from distillery.data.dedupe_selection import REJECTED_SCHEMA as DUPLICATE_SCHEMA
from distillery.metrics.intervals import Estimate, exact, to_metric
from distillery.report.build import Folders
from distillery.samples import SCHEMA
from distillery.shards import write_table_shard

# shape recall, KID, prediction distance, FID, CLIP score, U-Net parameters, ms
MODELS = {
    "teacher/guided": (0.74, 0.020, None, 5.1, 0.82, 3_493_792, 31),
    "teacher/unguided": (0.41, 0.031, None, 7.0, 0.66, 3_493_792, 31),
    "teacher/guided_offset": (0.73, 0.021, None, 5.2, 0.82, 3_493_792, 31),
    "unet/elr": (0.61, 0.055, 0.11, 9.3, 0.77, 1_542_176, 28),
    "unet/svd_only": (0.22, 0.9, 1.01, 31.0, 0.51, 1_542_176, 28),
    "unet/decomposed_no_kd": (0.19, 0.6, 0.83, 24.0, 0.55, 1_542_176, 28),
    "unet/standard_no_kd": (0.24, 0.48, 0.7, 21.0, 0.58, 3_493_792, 31),
    "unet/random_kd": (0.26, 0.4, 0.56, 19.0, 0.60, 1_542_176, 28),
    "unet/svd_no_kd": (0.60, 0.06, 0.19, 9.1, 0.76, 1_542_176, 28),
    "unet/elr_balanced": (0.62, 0.057, 0.12, 9.5, 0.77, 1_542_176, 28),
}
PROMPTS = (
    "a large red circle on a white background",
    "a blue square above a green triangle on a gray background",
    "a striped yellow star on a navy gradient background",
    "a small purple ring left of an orange heart on a beige background",
    "a dotted green cross on a black background",
    "a red triangle below a blue circle on a light gradient background",
    'a large <b>bold</b> & "quoted" caption </script> on a white background',
    "an orange diamond on a gray background " + "and so on " * 60,
    "a blue ring right of a red star on a white background",
)


def metric(value: float, spread: float, seeds: list[int]) -> dict:
    one = Estimate(value, spread, value - 2 * spread, value + 2 * spread, 256)
    per_seed = [replace(one, value=one.value + 0.1 * spread * i) for i in range(len(seeds))]
    extractor = {"extractor": "teacher_clip", "resize": "none", "notes": ["few images"]}
    return to_metric(per_seed, seeds, extractor)


def metrics_of(model: tuple, seeds: list[int]) -> dict:
    shape, kid, distance, fid, clip, *_ = model
    found = {
        "reader_shape": metric(shape, 0.02, seeds),
        "reader_colour": metric(min(1, shape + 0.2), 0.02, seeds),
        "kid": metric(kid, 0.01, seeds),
        "fid": metric(fid, 0.4, seeds),
        "fid_extrapolated": metric(fid - 0.5, 0.4, seeds),
        "clip_score": metric(clip, 0.01, seeds),
    }
    if distance is not None:
        found["prediction_distance"] = metric(distance, 0.005, seeds)
    return {"metrics": found, "skipped": {"psnr": "made up"}, "fingerprints": {}}


def profile() -> dict:
    found = {}
    for variant, model in MODELS.items():
        if variant in ("teacher/unguided", "teacher/guided_offset"):
            continue
        name = "teacher" if variant.startswith("teacher") else variant
        size, latency = model[5], model[6] / 1000
        for column in ("total", "unet", "adapter", "requires_grad", "in_optimiser"):
            extra = 362_275 if column == "total" else 0
            found[f"{name}/parameters_{column}"] = counted(size + extra)
        found[f"{name}/bytes_on_disk"] = counted(4 * size)
        found[f"{name}/macs"] = counted(27 * size)
        estimate = Estimate(latency, 0.001, latency - 0.002, latency + 0.004, 7)
        for quantity in ("latency_s", "train_step_s"):
            found[f"{name}/{quantity}"] = to_metric([estimate], [0], {"basis": "measured"})
        found[f"{name}/memory_bytes"] = to_metric([exact(4 * size)], [0], {"basis": "predicted"})
    found["sd21/dense/parameters_total"] = counted(1_289_952_427)
    found["sd21/low_rank/parameters_total"] = counted(788_273_515)
    return {"metrics": found, "skipped": {}, "fingerprints": {}, "device": "cpu"}


def counted(value: int) -> dict:
    return to_metric([exact(value)], [0], {"basis": "counted"})


def committed(folder: Path, date: str = "2026-01-02", seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """A results file as `collect` writes it."""
    path = folder / f"{date}-scenes-full.json"
    record = {
        "date": date,
        "preset": "scenes-full",
        "machine": "2 cores",
        "device": "cpu",
        "seeds": list(seeds),
        "params_fingerprint": "0",
        "versions": {},
        "metrics": {name: metrics_of(model, list(seeds)) for name, model in MODELS.items()},
        "profile": profile(),
    }
    write_json(path, record)
    return path


def png(colour: tuple[int, int, int], size_px: int = 64) -> bytes:
    image = Image.new("RGB", (size_px, size_px), (240, 238, 232))
    edge = size_px // 5
    ImageDraw.Draw(image).ellipse((edge, edge, size_px - edge, size_px - edge), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_samples(samples: Path) -> None:
    generator = np.random.default_rng(0)
    for variant in MODELS:
        rows = [
            {
                "key": f"{i:09d}",
                "image": {"bytes": png(tuple(generator.integers(0, 256, 3))), "path": None},
                "caption": prompt,
                "noise_seed": 0,
            }
            for i, prompt in enumerate(PROMPTS)
        ]
        write_table_shard(samples / variant / "seed-0" / "00000.parquet", rows, SCHEMA)


def _row(schema: pa.Schema, **values) -> dict:
    return dict.fromkeys(schema.names) | values


def _write_data(curated: Path, selection: Path) -> None:
    image = {"bytes": png((200, 30, 30)), "path": None}
    kept = [_row(CURATED_SCHEMA, key=f"k{i}", image=image, caption="a circle") for i in range(3)]
    write_table_shard(curated / "0" / "00000.parquet", kept, CURATED_SCHEMA)
    gone = [
        _row(REJECTED_SCHEMA, key="r0", reason="resolution", detail="40 x 40", caption="small",
             image=image),
        _row(REJECTED_SCHEMA, key="r1", reason="punsafe", detail="0.98 > 0.5", caption="hidden",
             image=image),
        _row(REJECTED_SCHEMA, key="r2", reason="unreadable", detail="cut short", caption=None,
             image={"bytes": b"not an image", "path": None}),
        _row(REJECTED_SCHEMA, key="r3", reason="caption_empty", detail=None, caption="",
             image=image),
    ]  # fmt: skip
    write_table_shard(curated / "0" / "rejected" / "00000.parquet", gone, REJECTED_SCHEMA)
    twin = [{"key": "k2", "part": 0, "reason": "near_duplicate", "duplicate_of": "k1"}]
    write_table_shard(selection / "rejected.parquet", twin, DUPLICATE_SCHEMA)
    rejected = {"resolution": 1, "punsafe": 1, "caption_empty": 1, "near_duplicate": 1}
    funnel = {"input": 7, "kept": 2, "rejected": rejected, "failed": {"unreadable": 1}}
    write_json(selection / "funnel.json", funnel)


def _write_models(models: Path, init: Path) -> None:
    for variant in MODELS:
        if variant.startswith("unet/"):
            objective = "noise" if variant.endswith("no_kd") else "teacher"
            losses = [{"step": s, "loss": 1 / (1 + s)} for s in range(1, 300, 5)]
            seeds = {"0": {"train": losses, "val": losses[::10]}}
            write_json(
                models / variant / "training.json",
                {"settings": {"objective": objective}, "seeds": seeds},
            )
    layers = [
        {"name": f"{block}.{kind}", "kind": kind, "rank": 16 + i, "full_rank": 48 + 3 * i,
         "relative_error": 0.2 + 0.01 * i, "params_before": 900, "params_after": 500}
        for i, block in enumerate(["down_blocks.0", "down_blocks.1", "up_blocks.0", "mid_block.0"])
        for kind in ("Conv2d", "Linear")
    ]  # fmt: skip
    write_json(init / "layers.json", {"init": "svd", "layers": layers})


def make_run(root: Path, *, with_committed: bool = True) -> Folders:
    """A whole run below `root`."""
    folders = Folders(
        curated=root / "curated",
        selection=root / "selection",
        init=root / "models" / "init",
        models=root / "models",
        samples=root / "samples",
        metrics=root / "metrics",
        results=root / "results",
    )
    for name, model in MODELS.items():
        write_json(folders.metrics / f"{name}.json", metrics_of(model, [0]))
    write_json(folders.metrics / "profile.json", json.loads(json.dumps(profile())))
    if with_committed:
        committed(folders.results)
    _write_samples(folders.samples)
    _write_data(folders.curated, folders.selection)
    _write_models(folders.models, folders.init)
    return folders
