"""A folder becomes a U-Net or a ControlNet, of the class that its config.json names.

In: a folder that `save_pretrained` wrote, a device, a dtype. Out: the model, in eval mode. Only
safetensors are read, and every tensor must be there and belong there: diffusers fills in random
weights and only warns. `load_network` does so for any class. Not here: LoRA files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.core.artifacts import read_json
from distillery.core.errors import DamagedError, DistilleryError, reason_of
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.models.strict import load_strictly

_UNETS = (UNet2DConditionModel, LowRankUNet2DConditionModel)
_REMEDY = "get it again, or rerun the stage that makes it"


def seed_folder(model: Path, seed: int, seeds: Sequence[int]) -> Path:
    """Where a model folder keeps what was trained with a seed: the first of `seeds` at its root."""
    return model if seed == seeds[0] else model / f"seed-{seed}"


def find_unet(folder: Path) -> Path:
    """Where the U-Net lies in a model folder: a teacher's is in `unet/`.

    Raises DistilleryError where there is none.
    """
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (unet / "config.json").is_file():
        raise DistilleryError(f"{folder}: no U-Net here (config.json); {_REMEDY}")
    return unet


def load_unet(
    folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> UNet2DConditionModel:
    """The U-Net in a folder or its `unet/`, dense or low-rank, frozen.

    Raises DistilleryError where there is none, for an unknown class, and for tensors that are
    missing or left over.
    """
    unet = _load(find_unet(Path(folder)), _UNETS, "U-Net", dtype)
    return unet.to(device).requires_grad_(False).eval()


def load_controlnet(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    frozen: bool = True,
) -> ControlNetModel:
    """The ControlNet, student ControlNet or control adapter in a folder.

    Not `frozen`: what its training trains requires a gradient. Raises as `load_unet`.
    """
    from distillery.models.control_adapter.adapter import ControlAdapter  # imports peft
    from distillery.models.student_controlnet.model import StudentControlNet

    kinds = (ControlNetModel, StudentControlNet, ControlAdapter)
    model = _load(Path(folder), kinds, "ControlNet", dtype).to(device).eval()
    return model.requires_grad_(False) if frozen else model


def _load(folder: Path, kinds: tuple[type, ...], what: str, dtype: torch.dtype) -> Any:
    known = {kind.__name__: kind for kind in kinds}
    name = read_json(folder / "config.json", remedy=_REMEDY).get("_class_name")
    if name not in known:
        raise DistilleryError(
            f"{folder}/config.json: {name} is no {what} known here; use {' or '.join(known)}"
        )
    return load_network(known[name].from_pretrained, folder, torch_dtype=dtype)


def load_network(
    load: Callable[..., Any], folder: Path, *, remedy: str = _REMEDY, **options: Any
) -> Any:
    """What `load`, a `from_pretrained` of diffusers or transformers, makes of a local folder.

    Raises DistilleryError where tensors are missing or left over, and DamagedError where the folder
    can't be read; `remedy` then says what to do.
    """
    try:
        return load_strictly(load, folder, local_files_only=True, **options)
    except DistilleryError:
        raise
    except Exception as error:  # of safetensors, of the libraries, of the file system
        raise DamagedError(f"{folder}: cannot load: {reason_of(error)}; {remedy}") from error
