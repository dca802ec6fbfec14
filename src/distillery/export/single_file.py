"""One `.safetensors` file with the original Stable Diffusion key names.

In: a student's U-Net and the teacher around it, or a student ControlNet. Out: a file that A1111,
ComfyUI, stable-diffusion.cpp and diffusers' `from_single_file` read. It is loaded again and
compared with the student before it has its name. Names: `encoder_names`, `vae_names`, `text_names`,
`controlnet_names`.
"""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import ControlNetModel, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from distillery.core.errors import DistilleryError
from distillery.core.publishing import publish, room_for
from distillery.export.controlnet_names import original_controlnet, plain_controlnet
from distillery.export.encoder_names import unet_names
from distillery.export.plain import dense_unet, pipeline_around
from distillery.export.text_names import is_open_clip, original_text_encoder
from distillery.export.vae_names import original_vae
from distillery.models import gate

SUFFIX = ".safetensors"


def write_checkpoint(
    unet: UNet2DConditionModel, teacher: Path, out: Path, fp16: bool = False
) -> Path:
    """U-Net, VAE and text encoder in one file; `teacher` gives the other parts and the config.

    With `fp16` the tensors are rounded to half precision. Raises DistilleryError where a layer has
    no original name or the file, loaded again, answers otherwise.
    """
    pipeline = pipeline_around(dense_unet(unet), teacher)
    with _scratch(original_pipeline(pipeline), out, fp16) as path:
        again = StableDiffusionPipeline.from_single_file(
            str(path), config=str(teacher), torch_dtype=torch.float32, local_files_only=True
        )
        parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
        wanted = [_as_written(part, fp16) for part in parts]
        gate.same_unet(wanted[0], again.unet)
        gate.same_vae(wanted[1], again.vae)
        gate.same_text_encoder(wanted[2], again.text_encoder)
    return out


def write_controlnet(controlnet: ControlNetModel, out: Path, fp16: bool = False) -> Path:
    """A ControlNet in one file with the original ControlNet's names.

    Raises DistilleryError where the student's architecture has no such form.
    """
    plain = plain_controlnet(controlnet)
    with tempfile.TemporaryDirectory() as config, _scratch(
        original_controlnet(plain), out, fp16
    ) as path:  # fmt: skip
        plain.save_config(config)
        again = ControlNetModel.from_single_file(
            str(path), config=config, torch_dtype=torch.float32, local_files_only=True
        )
        gate.same_controlnet(_as_written(plain, fp16), again)
    return out


def original_pipeline(pipeline: StableDiffusionPipeline) -> dict[str, Tensor]:
    """All tensors of a pipeline with a dense U-Net under the original names."""
    unet, text_encoder = pipeline.unet, pipeline.text_encoder
    names = unet_names(unet.state_dict())
    state = {f"model.diffusion_model.{names[k]}": t for k, t in unet.state_dict().items()}
    vae = original_vae(pipeline.vae.state_dict())
    state |= {f"first_stage_model.{key}": tensor for key, tensor in vae.items()}
    open_clip = is_open_clip(text_encoder.config.to_dict())
    return state | original_text_encoder(text_encoder.state_dict(), open_clip)


@contextmanager
def _scratch(state: Mapping[str, Tensor], out: Path, fp16: bool) -> Iterator[Path]:
    """Write `state` beside `out` under a name that loads; it is published if the block succeeds."""
    if out.suffix != SUFFIX:
        raise DistilleryError(f"{out}: must end in {SUFFIX}, the format that is written")
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(prefix=f".{out.stem}-", dir=out.parent)
    with room_for(out), scratch as folder:
        path = Path(folder) / f"model{SUFFIX}"
        save_file({key: _written(t, fp16) for key, t in sorted(state.items())}, path)
        yield path
        with publish(out) as partial:
            path.rename(partial)


def _written(tensor: Tensor, fp16: bool) -> Tensor:
    tensor = tensor.detach().cpu()
    is_half = fp16 and tensor.is_floating_point()
    return (tensor.half() if is_half else tensor).contiguous()


def _as_written(module: nn.Module, fp16: bool) -> nn.Module:
    """What the file must answer as: the module with its tensors rounded as they are there."""
    return copy.deepcopy(module).half().float().eval() if fp16 else module.eval()
