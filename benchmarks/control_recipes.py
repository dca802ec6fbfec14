"""Ways to train a control adapter on a low-rank U-Net, each judged by how well it keeps its maps.

Trains, draws and evaluates each recipe by the pipeline's own stages, on the data, cache, teacher
and U-Nets of a finished project, which is only read. Prints a line for each: edge F1 on Canny maps
and mIoU on segmentations, half of the images each, with intervals over images. A recipe that is in
`OUT/results.jsonl` is not run again; an interrupted one goes on where it stopped.

Usage: python benchmarks/control_recipes.py --project DIR --out OUT [--steps 60] [elr elr_planned]

The project's params are taken as they are, but for the recipe's own keys. It needs its U-Net
`unet/elr_planned` for the recipes that build on it.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from distillery.models.load import load_controlnet
from distillery.sampling import samples
from distillery.stage import Stage
from distillery.stages.evaluate import evaluate
from distillery.stages.finetune_control import finetune_control
from distillery.stages.generate import generate

PLANNED = {"backbone": "unet/elr_planned"}
FULL = {"update": "full", "learning_rate": 2e-3}
VARIANT = {"backbone": "unet/elr", "update": "kronecker", "encoder": "backbone",
           "learning_rate": 4e-3}  # fmt: skip
# Of `finetune_control`: keys of the variant, then of the section.
RECIPES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "uni_controlnet": ({"backbone": "teacher", **FULL}, {}),
    "elr_dense": ({"backbone": "teacher"}, {}),
    "elr": ({}, {}),
    "elr_planned": (PLANNED, {}),
    "encoder_teacher": ({**PLANNED, "encoder": "teacher"}, {}),
    "elr_encoder_teacher": ({"encoder": "teacher"}, {}),
    "full": ({**PLANNED, **FULL}, {}),
    "full_encoder_teacher": ({**PLANNED, **FULL, "encoder": "teacher"}, {}),
    "kd_10": (PLANNED, {"losses": {"lambda_kd": 10.0}}),
    "r_32": (PLANNED, {"kronecker": {"r": 32, "alpha": 32.0}}),
    "n_2_r_16": (PLANNED, {"kronecker": {"n": 2, "r": 16, "alpha": 16.0}}),
    "rate_half": ({**PLANNED, "learning_rate": 2e-3}, {}),
    "rate_twice": ({**PLANNED, "learning_rate": 8e-3}, {}),
    "steps_2x": ({**PLANNED, "steps": 2}, {}),
    "steps_4x": ({**PLANNED, "steps": 4}, {}),
    "norm_official": (PLANNED, {"norm": "official"}),
}
JUDGED_ON = ("canny", "segmentation")
METRICS = ("edge_f1", "miou", "edge_nmse", "edge_precision", "edge_recall", "kid")


def write_params(project: Path, out: Path, name: str, steps: int, num_samples: int) -> Path:
    """The project's params with one variant, the recipe; `steps` of a recipe multiply."""
    variant, section = RECIPES[name]
    values = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    tuned = values["finetune_control"]
    for key, value in section.items():
        tuned[key] = {**tuned[key], **value} if isinstance(value, dict) else value
    own = {**VARIANT, **variant, "steps": steps * variant.get("steps", 1)}
    tuned["variants"] = {"recipe": own}
    values["paths"]["work"] = str(out / "work")
    for stage in ("generate", "evaluate"):
        values[stage]["num_samples"] = num_samples
    path = out / "params.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def run(project: Path, out: Path, params: Path, backbone: str) -> None:
    """The three stages; what an earlier call published is taken as it is."""
    common = {
        "params": params, "teacher": project / "models/teacher",
        "backbone": project / "models" / backbone, "conditions": project / "data/conditions",
    }  # fmt: skip
    drawn = {
        "variant": "control/recipe", "curated": project / "data/curated",
        "selection": project / "data/selection", "model": out / "model",
        "samples": out / "samples",
    }  # fmt: skip
    base = project / "data/teacher_cache/base"
    if not (out / "model").exists():
        _call(finetune_control, **common, variant="recipe", base=base, model=out / "model")
    if not (out / "samples").exists():
        _call(generate, **common, **drawn)
    _call(evaluate, **common, **drawn, metrics=out / "metrics.json")


def _call(stage: Stage, **options: Any) -> None:
    stage.main([word for name, value in options.items() for word in (f"--{name}", str(value))])


def judged(out: Path, name: str, seconds: float) -> dict[str, Any]:
    """A line of the results: what was set, what was found, what is trained."""
    measured = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    adapter = load_controlnet(out / "model", "cpu", torch.float32, frozen=False)
    kept = ("value", "ci_low", "ci_high", "n")
    return {
        "recipe": name,
        "variant": yaml.safe_load((out / "params.yaml").read_text())["finetune_control"][
            "variants"
        ]["recipe"],
        "section": dict(RECIPES[name][1]),
        "cpu_s": round(seconds),
        "parameters_adapter": sum(p.numel() for p in adapter.parameters()),
        "parameters_trained": sum(p.numel() for p in adapter.parameters() if p.requires_grad),
        "metrics": {m: {k: measured[m][k] for k in kept} for m in METRICS if m in measured},
    }


def _judge_on(kinds: tuple[str, ...]) -> None:
    """Let `generate` take turns with these kinds only: more images of each for the same time."""
    module, plain = sys.modules[generate.function.__module__], samples.with_conditions
    module.with_conditions = lambda prompts, known: plain(prompts, kinds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", choices=[*RECIPES, []], default=[])
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--num_samples", type=int, default=160)
    given = parser.parse_args()
    results = given.out / "results.jsonl"
    lines = results.read_text().splitlines() if results.is_file() else []
    done = {json.loads(line)["recipe"] for line in lines}
    _judge_on(JUDGED_ON)
    for name in [n for n in given.recipes or RECIPES if n not in done]:
        out, started = given.out.resolve() / name, time.process_time()
        params = write_params(given.project, out, name, given.steps, given.num_samples)
        backbone = {**VARIANT, **RECIPES[name][0]}["backbone"]
        run(given.project.resolve(), out, params, backbone)
        row = judged(out, name, time.process_time() - started)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        found = {m: row["metrics"][m] for m in ("edge_f1", "miou")}
        said = ", ".join(
            f"{m} {v['value']:.3f} [{v['ci_low']:.3f}, {v['ci_high']:.3f}]"
            for m, v in found.items()
        )
        print(f"{name}: {said}", flush=True)


if __name__ == "__main__":
    main()
