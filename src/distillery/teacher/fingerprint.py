"""What identifies a teacher: hashes of its weights, its prediction type and its sizes.

In: a teacher folder. Out: the content of `fingerprint.json`; or an error for a teacher that this
project can't distill. Only JSON files and safetensors headers are read, so no torch is needed.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any

from distillery.core.artifacts import hash_file, read_json
from distillery.core.errors import DamagedError
from distillery.teacher.supported import prediction_type, require_fit

FINGERPRINT = "fingerprint.json"
_SIZES = (
    "_class_name", "architectures", "attention_head_dim", "block_out_channels",
    "conditioning_channels", "cross_attention_dim", "hidden_size", "in_channels",
    "latent_channels", "layers_per_block", "num_hidden_layers", "out_channels", "sample_size",
    "scaling_factor", "use_linear_projection", "vocab_size",
)  # fmt: skip


def fingerprint(folder: Path) -> dict[str, Any]:
    """`{"prediction_type", "num_train_timesteps", "weights": {file: sha256}, "components"}`.

    Raises DistilleryError if the teacher predicts neither eps nor v, or U-Net, VAE and text
    encoder do not fit together.
    """
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    weights = sorted(folder.rglob("*.safetensors"))
    described = {
        "prediction_type": prediction_type(folder, scheduler),
        "num_train_timesteps": scheduler.get("num_train_timesteps", 1000),
        "zero_terminal_snr": bool(scheduler.get("rescale_betas_zero_snr", False)),
        "weights": {path.relative_to(folder).as_posix(): hash_file(path) for path in weights},
        "components": {
            path.parent.name: _describe(path.parent)
            for path in sorted(folder.glob("*/config.json"))
        },
    }
    require_fit(folder)
    return described


def _describe(component: Path) -> dict[str, Any]:
    config = read_json(component / "config.json")
    sizes = {name: config[name] for name in _SIZES if name in config}
    files = sorted(component.glob("*.safetensors"))
    return {**sizes, "num_parameters": sum(map(count_parameters, files))}


def count_parameters(path: Path) -> int:
    """Elements of all tensors in a safetensors file, from its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        return sum(math.prod(t["shape"]) for n, t in header.items() if n != "__metadata__")
    except (struct.error, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise DamagedError(f"{path}: not a safetensors file ({error}); get it again") from None
