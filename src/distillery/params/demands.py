"""What a stage asks of a scheduler: memory of the host, from the params and the teacher's size.

In: checked params, a stage's name. Out: MiB. An upper estimate that needs no torch, because the
rules of Snakemake import it: four copies of the weights in training (weights, gradient, Adam's two
moments), a second model beside, and activations of 0.8 times the teacher's bytes for an image of
512 px, measured at Stable Diffusion 1.5 (27 to 32 GB at a batch of 16 in bf16). Memory of a GPU is
`distillery profile`'s business.
"""

from functools import reduce
from pathlib import Path
from typing import Any

from distillery.params.model import Params

WITHOUT_TORCH = ("ingest", "curate", "deduplicate", "extract_conditions", "report")
SMALL_MIB, PYTHON_MIB = 2000, 2500
FULL_SIZE_MIB = 5200  # Stable Diffusion 2.1 in float32, where the teacher is not on this disk
ACTIVATIONS, FULL_PX = 0.8, 512
COPIES = {"init_student": 3, "prepare_teacher": 3}
TRAINED_COPIES, LOADED_COPIES = 5, 2


def memory_mib(params: Params, stage: str) -> int:
    """Of one job of `stage`."""
    if stage == "deduplicate" and params.deduplicate.embedding:
        return SMALL_MIB + PYTHON_MIB
    if stage in WITHOUT_TORCH:
        return SMALL_MIB
    teacher = teacher_mib(params)
    batch = _batch_size(params, stage)
    is_trained_here = _is_training(params, stage) and params.device == "cpu"
    copies = COPIES.get(stage, TRAINED_COPIES if is_trained_here else LOADED_COPIES)
    scale = (params.data.resolution_px / FULL_PX) ** 2
    on_host = 0.0 if params.device == "cuda" else ACTIVATIONS * teacher * scale * batch
    return round(PYTHON_MIB + copies * teacher + on_host)


def teacher_mib(params: Params) -> float:
    """Size of the teacher's weights; of Stable Diffusion's where they are yet to be downloaded."""
    source = params.prepare_teacher.source
    folder = Path(params.paths.scenes_teacher if source == "scenes" else source)
    sizes = [file.stat().st_size for file in folder.rglob("*.safetensors")]
    return sum(sizes) / 2**20 if sizes else FULL_SIZE_MIB


def _is_training(params: Params, stage: str) -> bool:
    return hasattr(getattr(params, stage, None), "training")


def _batch_size(params: Params, stage: str) -> int:
    """Images at once."""
    for path in (f"{stage}.training.batch_size", f"{stage}.batch_size", "generate.batch_size"):
        value: Any = reduce(lambda at, key: getattr(at, key, None), path.split("."), params)
        if isinstance(value, int):
            return value
    return 1
