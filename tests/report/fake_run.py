"""A finished run on disk, with made-up numbers, for tests of the report."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from distillery.core.artifacts import write_json
from distillery.core.shards import write_table_shard
from distillery.data.conditions.annotate import CONDITION_SCHEMA, COUNTS
from distillery.data.curation.curate import CURATED_SCHEMA, REJECTED_SCHEMA
from distillery.data.dedupe.selection import REJECTED_SCHEMA as DUPLICATE_SCHEMA
from distillery.metrics.intervals import Estimate, exact, to_metric
from distillery.report.build import Folders, Setup, build_report
from distillery.sampling.samples import SCHEMA

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
    return to_metric(per_seed, seeds, {})


# edge F1, mIoU, sketch CLIP, KID, FID, adapter's size, trained parameters, ms
CONTROLLED = {
    "teacher/control_canny": (0.74, 0.6, 0.70, 0.030, 6.0, 1_725_760, 0, 44),
    "teacher/control_sketch": (0.5, 0.55, 0.75, 0.031, 6.1, 1_725_760, 0, 44),
    "teacher/control_segmentation": (0.4, 0.75, 0.6, 0.032, 6.2, 1_725_760, 0, 44),
    "teacher/control_canny_offset": (0.73, 0.6, 0.70, 0.030, 6.0, 1_725_760, 0, 44),
    "control/uni_controlnet": (0.66, 0.70, 0.69, 0.041, 7.7, 2_100_000, 2_100_000, 46),
    "control/elr_dense": (0.65, 0.73, 0.68, 0.042, 7.9, 1_000_000, 300_000, 41),
    "control/elr_no_kd": (0.35, 0.41, 0.5, 0.35, 21.0, 1_000_000, 300_000, 37),
    "control/elr": (0.6, 0.69, 0.66, 0.06, 9.9, 1_000_000, 300_000, 37),
    "controlnet/original": (0.61, 0.5, 0.6, 0.045, 7.0, 1_725_760, 1_725_760, 44),
    "controlnet/reduced_channel": (0.69, 0.55, 0.65, 0.040, 6.6, 880_000, 880_000, 40),
    "controlnet/reduced_layer": (0.65, 0.54, 0.63, 0.05, 7.1, 440_000, 440_000, 37),
    "controlnet/modulated": (0.68, 0.56, 0.64, 0.044, 6.8, 480_000, 480_000, 38),
    "controlnet/loha": (0.62, 0.53, 0.61, 0.06, 7.6, 270_000, 270_000, 39),
    "whole/student": (0.58, 0.5, 0.6, 0.07, 10.1, 270_000, 0, 31),
}
# shape recall, KID, prediction distance, FID, CLIP score, LPIPS, trained parameters, memory
GUIDED = {
    "guidance/full_finetune": (0.42, 0.030, 0.3, 6.9, 0.67, 0.31, 3_493_792, 56e6),
    "guidance/full_distill": (0.72, 0.022, 0.06, 5.3, 0.81, 0.08, 3_493_792, 70e6),
    "guidance/lora_finetune": (0.43, 0.030, 0.29, 6.8, 0.67, 0.30, 210_000, 18e6),
    "guidance/lora_distill": (0.71, 0.023, 0.08, 5.4, 0.81, 0.10, 210_000, 18e6),
}
KINDS = ("canny", "sketch", "segmentation")
TOWER = {
    "extractor": "teacher_clip", "resize": "none", "notes": ["few images"], "shape_probe": 0.93,
}  # fmt: skip
OF_TOWER = ("fid", "kid", "clip_score", "sketch_clip_score", "lpips")
WHOLE = {"student": {"backbone": "unet/elr", "guidance": "lora_distill", "controlnet": "loha"}}


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


def per_image(values: dict[str, float], seeds: list[int], noise: float = 0.1) -> dict:
    """Values of 40 images around a mean, with what is hard for one model hard for all."""
    hard = np.random.default_rng(5).normal(0, noise, 40)
    kept = {
        name: {
            str(s): [float(f"{v:.5g}") for v in mean + hard + 0.001 * s + 0.0005 * (hard > 0)]
            for s in seeds
        }
        for name, mean in values.items()
    }
    return {"keys": [f"{i:09d}" for i in range(40)], "values": kept}


def controlled_of(variant: str, model: tuple, seeds: list[int]) -> dict:
    f1, miou, sketch, kid, fid, *_ = model
    offset = 0.4 - f1 / 4
    found = metrics_of((f1 - 0.05, kid, None, fid, f1, 0, 0), seeds)
    extra = {
        "edge_f1": (f1, 0.01), "edge_precision": (f1 + 0.02, 0.01), "edge_recall": (f1, 0.01),
        "edge_nmse": (1.2 - f1, 0.02), "edge_nmse_symmetric": (0.7 - f1 / 2, 0.02),
        "miou": (miou, 0.01), "sketch_clip_score": (sketch, 0.01), "ssim": (f1 / 3, 0.01),
        "psnr": (8 + f1, 0.2), "lpips": (offset, 0.01), "ssim_teacher": (f1 / 4, 0.01),
        "psnr_teacher": (7 + f1, 0.2), "lpips_teacher": (offset + 0.1, 0.002),
        "fid_extrapolated_teacher": (fid - 3, 0.4), "fid_teacher": (fid - 2.5, 0.4),
        "kid_teacher": (kid / 2, 0.005), "ssim_pair": (f1, 0.01), "lpips_pair": (offset, 0.01),
    }  # fmt: skip
    is_dual = variant.startswith(("controlnet/", "teacher/"))
    for name, (value, spread) in extra.items():
        if is_dual or not name.endswith(("_pair", "_teacher")):
            found["metrics"][name] = metric(value, spread, seeds)
    found["per_image"] = per_image({"edge_f1": f1, "ssim": f1 / 3, "lpips": offset}, seeds)
    return found


def guided_of(model: tuple, seeds: list[int]) -> dict:
    found = metrics_of(model, seeds)
    found["metrics"]["lpips"] = metric(model[5], 0.01, seeds)
    return found


def all_metrics(seeds: list[int], families: bool = True) -> dict[str, dict]:
    found = {name: metrics_of(model, seeds) for name, model in MODELS.items()}
    if families:
        found |= {n: controlled_of(n, m, seeds) for n, m in CONTROLLED.items()}
        found |= {n: guided_of(m, seeds) for n, m in GUIDED.items()}
        found["teacher/unguided"]["metrics"]["lpips"] = metric(0.3, 0.01, seeds)
        for name, value in {"edge_f1": 0.12, "miou": 0.21, "sketch_clip_score": 0.4}.items():
            found["teacher/guided"]["metrics"][name] = metric(value, 0.01, seeds)
    for values in found.values():
        for name, one in values["metrics"].items():
            if name.startswith(OF_TOWER):
                one["settings"] |= TOWER
    return found


def profile(families: bool = True) -> dict:
    found = {}
    for variant, model in MODELS.items():
        if variant not in ("teacher/unguided", "teacher/guided_offset"):
            name = "teacher" if variant.startswith("teacher") else variant
            found |= _costs(name, model[5], 0, model[5], model[6] / 1000)
    if families:
        for name, model in CONTROLLED.items():
            if not name.endswith("_offset"):
                dense = name.startswith(("teacher/", "controlnet/")) or "dense" in name
                unet = 3_493_792 if dense or "uni" in name else 1_542_176
                found |= _costs(name, unet, model[5], model[6], model[7] / 1000)
        for name, model in GUIDED.items():
            found |= _costs(name, 3_493_792, 210_000, model[6], 0.031)
            predicted = {"basis": "predicted"}
            memory = to_metric([exact(int(model[7]))], [0], predicted)
            found[f"{name}/train_memory_bytes"] = memory
    found["sd21/dense/parameters_total"] = counted(1_289_952_427)
    found["sd21/low_rank/parameters_total"] = counted(788_273_515)
    return {"metrics": found, "skipped": {}, "fingerprints": {}, "device": "cpu"}


def build(folders: Folders, reports: Path, **times: str) -> None:
    """The report of a run; `times` by label."""
    setup = Setup(
        title="Test", source="scenes", seeds=[0], num_gallery_samples=9,
        facts=[("data", "scenes"), ("teacher", "scenes")],
        times={"ingest": "1.0 s", **times},
        whole=WHOLE,
    )  # fmt: skip
    build_report(folders, reports, setup)


def _costs(name: str, unet: int, adapter: int, trained: int, latency: float) -> dict:
    counts = {"total": unet + adapter + 362_275, "unet": unet, "adapter": adapter,
              "requires_grad": trained, "in_optimiser": trained}  # fmt: skip
    found = {f"{name}/parameters_{column}": counted(count) for column, count in counts.items()}
    found[f"{name}/bytes_on_disk"] = counted(4 * (unet + adapter))
    found[f"{name}/macs"] = counted(27 * (unet + adapter))
    estimate = Estimate(latency, 0.001, latency - 0.002, latency + 0.004, 7)
    for quantity in ("latency_s", "train_step_s"):
        found[f"{name}/{quantity}"] = to_metric([estimate], [0], {"basis": "measured"})
    memory = to_metric([exact(4 * (unet + adapter))], [0], {"basis": "predicted"})
    return found | {f"{name}/memory_bytes": memory}


def full_size(folder: Path) -> Path:
    """A file as `distillery profile` writes it: measured on a GPU, with predictions beside."""

    def row(memory: float | None, step: float, **counts: int) -> dict:
        measured = {"seconds_per_iteration": step, "seconds_range": [step, step * 1.05]}
        peak = {"peak_allocated_bytes": memory} if memory else {}
        return {**measured, **peak, "parameters": counts, "predicted_bytes": {"peak": 9.4e9}}

    rows = {
        "uni_controlnet": row(
            20e9, 0.9, unet=859_521_000, adapter=411_904_000, in_optimiser=411_904_000
        ),
        "elr": row(9e9, 0.3, unet=361_000_000, adapter=180_000_000, in_optimiser=66_000_000),
        "full_finetune": row(20e9, 0.4),
        "full_distill": row(23.3e9, 0.6),
        "lora_finetune": row(None, 0.3),
        "lora_distill": row(9.8e9, 0.5),
        "controlnet_loha": row(8e9, 0.2, adapter=57_300_000),
        "controlnet_teacher": row(14e9, 0.5, adapter=364_200_000),
    }
    path = folder / "profile" / "2026-01-02-sd15.json"
    record = {
        "date": "2026-01-02",
        "device": "A GPU",
        "versions": {},
        "rows": rows,
        "settings": {"preset": "sd15"},
    }
    write_json(path, record)
    return path


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
        "metrics": all_metrics(list(seeds)),
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


def _write_samples(samples: Path, variants: list[str]) -> None:
    generator = np.random.default_rng(0)
    colours = [tuple(generator.integers(40, 220, 3)) for _ in PROMPTS]
    for place, variant in enumerate(variants):
        rows = []
        for i, prompt in enumerate(PROMPTS):
            kind = ""
            if "control" in variant or variant.startswith("whole/"):
                kind = KINDS[i % 3] if variant.startswith("control/") else "canny"
            colour = tuple(min(255, int(c) + 3 * place) for c in colours[i])
            image = {"bytes": png(colour), "path": None}
            rows.append({"key": f"{i:09d}", "image": image, "caption": prompt, "noise_seed": 0,
                         "condition": kind})  # fmt: skip
        write_table_shard(samples / variant / "seed-0" / "00000.parquet", rows, SCHEMA)


def _write_conditions(conditions: Path) -> None:
    for kind in KINDS:
        rows = [
            {"key": f"{i:09d}", "image": {"bytes": png((255, 255, 255)), "path": None}}
            for i in range(len(PROMPTS))
        ]
        write_table_shard(conditions / "0" / kind / "00000.parquet", rows, CONDITION_SCHEMA)
    counts = {kind: {"maps": len(PROMPTS), "left_out": {}} for kind in KINDS}
    write_json(conditions / "0" / COUNTS, counts)


def _row(schema: pa.Schema, **values) -> dict:
    return dict.fromkeys(schema.names) | values


def _write_data(curated: Path, selection: Path) -> None:
    image = {"bytes": png((200, 30, 30)), "path": None}
    keys = [*(f"k{i}" for i in range(3)), *(f"{i:09d}" for i in range(len(PROMPTS)))]
    kept = [_row(CURATED_SCHEMA, key=key, image=image, caption="a circle") for key in keys]
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


def _described(variant: str) -> dict:
    """What the family's training writes of a variant that its card needs."""
    backbone = "unet/elr" if variant.endswith("elr") else "teacher"
    if variant.startswith("guidance/"):
        objective = "noise" if "finetune" in variant else "teacher"
        update = "lora" if "lora" in variant else "full"
        return {"backbone": backbone, "update": update, "objective": objective,
                "scale_low": 3.0, "scale_high": 3.0}  # fmt: skip
    return {"backbone": backbone, "kinds": list(KINDS)} if "control/" in variant else {}


def _write_models(models: Path, init: Path, variants: list[str]) -> None:
    for variant in variants:
        if variant.startswith(("teacher/", "whole/")):
            continue
        objective = "noise" if variant.endswith("no_kd") else "teacher"
        settings = {"steps": 300, "learning_rate": 0.002, **_described(variant)}
        losses = [{"step": s, "loss": 1 / (1 + s)} for s in range(1, 300, 5)]
        if variant.startswith("controlnet/"):
            names = [f"kd_{i}" for i in range(6)] + ["kd_mid"]
            losses = [
                {
                    **e,
                    "diffusion": e["loss"],
                    **{n: e["loss"] * (i + 1) for i, n in enumerate(names)},
                }
                for e in losses
            ]
        elif variant.startswith("unet/"):
            settings["objective"] = objective
        seeds = {"0": {"train": losses, "val": losses[::10]}}
        write_json(models / variant / "training.json", {"settings": settings, "seeds": seeds})
    layers = [
        {"name": f"{block}.{kind}", "kind": kind, "rank": 16 + i, "full_rank": 48 + 3 * i,
         "relative_error": 0.2 + 0.01 * i, "params_before": 900, "params_after": 500}
        for i, block in enumerate(["down_blocks.0", "down_blocks.1", "up_blocks.0", "mid_block.0"])
        for kind in ("Conv2d", "Linear")
    ]  # fmt: skip
    write_json(init / "svd" / "layers.json", {"init": "svd", "layers": layers})


def folders_of(root: Path, families: bool = True) -> Folders:
    """Where `make_run` writes."""
    return Folders(
        curated=root / "curated",
        selection=root / "selection",
        init=root / "models" / "init",
        models=root / "models",
        samples=root / "samples",
        metrics=root / "metrics",
        results=root / "results",
        conditions=root / "conditions" if families else None,
    )


def make_run(root: Path, *, with_committed: bool = True, families: bool = True) -> Folders:
    """A whole run below `root`; without `families` one of Stage I only."""
    folders = folders_of(root, families)
    found = all_metrics([0], families)
    for name, values in found.items():
        write_json(folders.metrics / f"{name}.json", values)
    write_json(folders.metrics / "profile.json", json.loads(json.dumps(profile(families))))
    if with_committed:
        committed(folders.results)
        full_size(folders.results)
    _write_samples(folders.samples, list(found))
    _write_data(folders.curated, folders.selection)
    _write_models(folders.models, folders.init, list(found))
    if families:
        _write_conditions(folders.conditions)
    return folders
