"""Export of a low-rank student to plain diffusers folders, and the gate that proves them equal.

In: a student U-Net or a pipeline around one. Out: folders that load with diffusers alone, without
this package. Nothing is published atomically here; the calling stage owns the final name.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, ModelMixin, UNet2DConditionModel
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.publishing import room_for
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel


def save_model(model: ModelMixin | DiffusionPipeline, folder: str | Path) -> Path:
    """`save_pretrained` as safetensors, without the path that the model was once loaded from.

    diffusers and transformers note it as `_name_or_path` in their JSON files, so that equal models
    would not give equal bytes.
    """
    folder = Path(folder)
    with room_for(folder, _num_bytes(model)):
        model.save_pretrained(folder, safe_serialization=True)
    for path in [*folder.glob("*.json"), *folder.glob("*/*.json")]:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "_name_or_path" in content:
            del content["_name_or_path"]
            text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
            path.write_text(text + "\n", encoding="utf-8")
    return folder


def _num_bytes(model: ModelMixin | DiffusionPipeline) -> int:
    is_pipeline = isinstance(model, DiffusionPipeline)
    modules = model.components.values() if is_pipeline else [model]
    tensors = (p for m in modules if isinstance(m, nn.Module) for p in m.parameters())
    return sum(tensor.nbytes for tensor in tensors)


def export_dense(
    student: LowRankUNet2DConditionModel | DiffusionPipeline, folder: str | Path
) -> UNet2DConditionModel | DiffusionPipeline:
    """Save a student, or a pipeline with a student U-Net, with the U-Net merged to a dense one.

    Returns what was saved. The folder needs nothing of this package: `from_pretrained` of diffusers
    reads it. Raises DistilleryError if the U-Net is not low-rank.
    """
    is_pipeline = isinstance(student, DiffusionPipeline)
    unet = student.unet if is_pipeline else student
    if not isinstance(unet, LowRankUNet2DConditionModel):
        raise DistilleryError(
            f"only a low-rank U-Net is merged, this is a {type(unet).__name__}; save it as it is"
        )
    dense = unet.to_dense()
    if is_pipeline:
        dense = type(student)(**{**student.components, "unet": dense}, **_pipeline_flags(student))
    save_model(dense, folder)
    return dense


@torch.no_grad()
def assert_same_output(
    a: Callable, b: Callable, inputs: Mapping | Sequence, tolerance: float = 1e-4
) -> float:
    """Largest absolute difference between the outputs of `a` and `b` on the same inputs.

    `inputs` is a mapping or sequence of arguments; modules run in evaluation mode. Outputs may be
    tensors, or tuples and `ModelOutput`s that begin with one.
    Raises DistilleryError with the measured difference if it exceeds `tolerance` or is NaN.
    """
    first, second = (_output(function, inputs) for function in (a, b))
    if first.shape != second.shape:
        raise DistilleryError(
            f"outputs differ in shape, {tuple(first.shape)} and {tuple(second.shape)}; "
            "compare models of one architecture"
        )
    difference = float((first.double() - second.double()).abs().max())
    if not difference <= tolerance:
        raise DistilleryError(
            f"outputs differ by {difference:.3g}, more than the tolerance {tolerance:.3g}; "
            "do not use this export, make it again"
        )
    return difference


def _output(function: Callable, inputs: Mapping | Sequence) -> Tensor:
    was_training = getattr(function, "training", False)
    if was_training:
        function.eval()
    try:
        output = function(**inputs) if isinstance(inputs, Mapping) else function(*inputs)
    finally:
        if was_training:
            function.train()
    return output if isinstance(output, Tensor) else torch.as_tensor(output[0])


def _pipeline_flags(pipeline: DiffusionPipeline) -> dict:
    """Arguments of the pipeline that are not components, such as `requires_safety_checker`."""
    arguments = inspect.signature(type(pipeline).__init__).parameters
    return {
        key: value
        for key, value in pipeline.config.items()
        if key in arguments and key not in pipeline.components
    }
