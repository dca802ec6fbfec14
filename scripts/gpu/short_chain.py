"""What the chain of the part `correctness` starts from: params of few steps, and a teacher.

In: the place of a run, folders. Out: the shipped params with few images and few steps, and a
teacher of Stable Diffusion's size with random weights. Not here: running anything.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from common import Place
from diffusers import DDIMScheduler
from torch import nn

from distillery.cost.accounting import load_architecture, teacher_controlnet
from distillery.cost.full_size.device import materialise

SCENES = Path("data/scenes-sd")


def write_params(place: Place, root: Path, teacher: Path) -> tuple[Path, dict[str, Any]]:
    """The shipped params with few images and few steps, everything below `root`."""
    from distillery.params.merge import lay_over  # needs pydantic, which other parts do without

    shipped, side = yaml.safe_load(Path("params.yaml").read_text()), 64 if place.dry else 512
    variant = {"learning_rate": 1e-5, "steps": 2 if place.dry else 6}
    training = {
        "batch_size": 2 if place.dry else 4, "warmup_steps": 1, "checkpoint_every_steps": 2,
        "validate_every_steps": 50, "num_val_samples": 2, "gradient_checkpointing": not place.dry,
        "precision": "fp32" if place.dry else "bf16", "matmul_precision": "high",
        "runtime": "eager" if place.dry else "graph",
    }  # fmt: skip
    unet = {"architecture": "low_rank", "init": "svd", "objective": "teacher", **variant}
    control = {"backbone": "unet/elr", "update": "kronecker", "encoder": "backbone", **variant}
    net = {
        "student": "distilled",
        "init": "teacher",
        "terms": ["diffusion", "teacher", "kd"],
        **variant,
    }
    guided = {"update": "lora", "objective": "teacher", "backbone": "unet/elr", **variant}
    whole = {"backbone": "unet/elr", "guidance": "lora_distill_elr", "controlnet": "distilled"}
    paths = {name: str(root / path) for name, path in shipped["paths"].items()}
    own = {
        "device": place.device.type, "num_threads": 1 if place.dry else 8,
        "paths": {**paths, "scenes_teacher": str(teacher), "results": "docs/results"},
        "data": {"parts": [0], "resolution_px": side},
        "ingest": {"scenes": {"num_scenes": 24 if place.dry else 48, "size_px": side}},
        "deduplicate": {"split": {"val": 0.15, "test": 0.3}},
        "cache_teacher": {"views": ["cond", "uncond"], "batch_size": 8,
                          "num_slots": 2, "dtype": "fp32" if place.dry else "fp16"},
        "init_student": {"methods": ["svd"], "plans": {}, "num_moment_samples": 4},
        "distill_unet": {"training": training, "variants": {"elr": unet}},
        "finetune_control": {"training": training, "losses": {"lambda_kd": 0.0},
                             "variants": {"elr": control}},
        "distill_controlnet": {"training": training, "variants": {"distilled": net}},
        "distill_guidance": {"training": training, "variants": {"lora_distill_elr": guided}},
        "generate": {"num_samples": 4, "num_inference_steps": 2, "batch_size": 4,
                     "dtype": "fp32" if place.dry else "fp16", "matmul_precision": "high",
                     "runtime": "eager" if place.dry else "graph",
                     "whole": {"student": whole}},
        "evaluate": {"num_samples": 4, "num_bootstrap": 100, "num_blocks": 2},
    }  # fmt: skip
    if place.photos is not None:
        own["ingest"] |= {"source": "webdataset", "path": str(place.photos), "max_samples": 64}
        own["curate"] = {"max_punsafe": None, "max_pwatermark": None, "min_aesthetic": None,
                         "min_similarity": None, "min_side_px": 256}  # fmt: skip
    params = lay_over(shipped, own)
    root.mkdir(parents=True, exist_ok=True)
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    return file, params


def make_teacher(folder: Path) -> None:
    """SD 1.5 and its ControlNet with random weights; the shipped tokenizer and CLIP."""
    parts = load_architecture("sd15")
    networks: dict[str, nn.Module] = {**parts, "controlnet_canny": teacher_controlnet(parts)}
    for name, module in networks.items():
        materialise([module.half()], torch.device("cuda"))
        module.cpu().save_pretrained(folder / name)
    for name in ("tokenizer", "clip"):
        shutil.copytree(SCENES / name, folder / name, dirs_exist_ok=True)
    DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
        clip_sample=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = json.loads((SCENES / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index))
