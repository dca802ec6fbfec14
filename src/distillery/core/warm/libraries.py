"""What stages import of others, and whether a process that has imported it may fork.

In: this process. Out: libraries in it, once; why it must not fork, if so. Nothing of this package
is imported.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterable, Mapping

__computes__ = False  # it starts what computes

# What stages import, and what diffusers, transformers and pyarrow import only when it is asked for.
LIBRARIES = {
    "accelerate": (), "cv2": (), "peft": (), "pyarrow.parquet": (), "tqdm": (),
    "pandas": (), "safetensors.torch": (), "torch": (), "torch.utils.flop_counter": (),
    "torch.utils.tensorboard": (), "torchmetrics.image.fid": (), "yaml": (),
    "pydantic": ("BaseModel", "Field", "ValidationError", "create_model", "model_validator"),
    "diffusers": (
        "AutoencoderKL", "ControlNetModel", "DDIMScheduler", "DDPMScheduler", "DiffusionPipeline",
        "ModelMixin", "UNet2DConditionModel",
    ),
    "transformers": ("CLIPModel", "CLIPTextModel", "CLIPTokenizer"),
}  # fmt: skip
# While the libraries are imported. How many GPUs there are is asked without starting the driver,
# which no fork outlives; Arrow's second allocator, which nothing uses, starts no thread.
CAREFUL = {
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false",
}  # fmt: skip
_GPUS = ("/dev/nvidia", "/dev/kfd")


def import_libraries(libraries: Mapping[str, Iterable[str]]) -> None:
    """Import modules, and names that they import when asked; those that are absent are not."""
    gc.disable()  # nothing of it is garbage
    for name, lazy in libraries.items():
        with contextlib.suppress(Exception):  # it is the stage's to say what is wrong
            module = importlib.import_module(name)
            for attribute in lazy:
                getattr(module, attribute)
    if "transformers" in sys.modules:
        _make_conversions()
    gc.freeze()
    gc.enable()


def _make_conversions() -> None:
    """What transformers makes for the first model that it reads."""
    with contextlib.suppress(Exception):
        conversions = importlib.import_module("transformers.conversion_mapping")
        conversions.get_checkpoint_conversion_mapping("clip")


def why_unfit() -> str:
    """What forbids to fork this process and go on computing in the child; empty if nothing does."""
    # BLAS libraries end their threads before a fork and start them when they next compute.
    os.waitpid(os.fork() or os._exit(0), 0)
    if (num := len(os.listdir("/proc/self/task"))) > 1:
        return f"the libraries have started {num - 1} threads"
    if any(path.startswith(_GPUS) for path in _open_paths()):
        return "the libraries have opened a GPU"
    return ""


def _open_paths() -> Iterable[str]:
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{descriptor}")
