"""Can shapes be told apart in a CLIP model's features? A linear probe, and its record.

In: the folder of a CLIP model. Out: `shape_probe.json` in it, which `evaluate` writes beside every
score of that model and without which none of them decides a claim.
`python -m distillery.scenes_teacher.probe TEACHER` records it for `TEACHER/clip`. Scenes come
from a seed that no component was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import CLIPImageProcessor, CLIPModel

from distillery.data.scenes.draw import Scene, draw_scene
from distillery.data.scenes.palette import SHAPES
from distillery.metrics.shape_probe import record_accuracy
from distillery.models.load import load_network

SEED = 2_100_000_000
NUM_SCENES = 3000
STEPS = 300
RIDGE = 1e-3
BATCH = 64


def pick_scenes(num_scenes: int, num_objects: int | None) -> list[Scene]:
    """The first scenes of `SEED` with this number of objects (None: any)."""
    scenes, index = [], 0
    while len(scenes) < num_scenes:
        scene = draw_scene(SEED, index)
        index += 1
        if num_objects in (None, len(scene.objects)):
            scenes.append(scene)
    return scenes


def record_probe(clip: Path, num_scenes: int = NUM_SCENES) -> dict[str, float]:
    """Measure the probe of the CLIP model in the folder `clip` and leave its record there."""
    record = measure_probe(clip, pick_scenes(num_scenes, 1))
    record_accuracy(clip, record["shape_probe"], record["num_test"])
    return record


def measure_probe(clip: Path, scenes: list[Scene]) -> dict[str, float]:
    """Accuracy of a linear probe (logistic regression) for the shape on pooled image features.

    Fitted on the first four fifths of one-object scenes, tested on the rest. 10 s for 3,000 scenes.
    """
    features = _pooled_features(clip, scenes)
    labels = torch.tensor([SHAPES.index(scene.objects[0].shape) for scene in scenes])
    cut = 4 * len(scenes) // 5
    features = (features - features[:cut].mean(0)) / features[:cut].std(0).clamp(min=1e-6)
    weights, bias = _fit(features[:cut], labels[:cut])
    hits = (features[cut:] @ weights + bias).argmax(dim=1) == labels[cut:]
    return {"shape_probe": float(hits.float().mean()), "num_test": len(hits)}


@torch.no_grad()
def _pooled_features(clip: Path, scenes: list[Scene]) -> torch.Tensor:
    model = load_network(CLIPModel.from_pretrained, clip)
    process = CLIPImageProcessor.from_pretrained(clip)
    rows = []
    for start in range(0, len(scenes), BATCH):
        images = [scene.image for scene in scenes[start : start + BATCH]]
        pixels = process(images=images, return_tensors="pt").pixel_values
        rows.append(model.vision_model(pixel_values=pixels).pooler_output)
    return torch.cat(rows)


def _fit(features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [d, shapes] and bias of a ridge-regularised logistic regression, by L-BFGS."""
    weights = torch.zeros(features.shape[1], len(SHAPES), requires_grad=True)
    bias = torch.zeros(len(SHAPES), requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(features @ weights + bias, labels)
        loss = loss + RIDGE * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach(), bias.detach()


def main() -> None:
    """Command line: the teacher's folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    print(record_probe(parser.parse_args().teacher / "clip"))


if __name__ == "__main__":
    main()
