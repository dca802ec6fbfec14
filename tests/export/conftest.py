"""A project with a model of every family that describes itself, made once for all tests."""

from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from distillery.families.description import Description, Sampling, base_of, write_description
from distillery.models.control_adapter import ControlAdapter
from distillery.models.lora.files import save_lora
from distillery.models.lora.guidance_embedding import add_scale_embedding
from distillery.models.lora.layers import add_lora
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.student_controlnet import PRESETS, build_student
from models.control_helpers import KRONECKER
from tiny_models import tiny_controlnet, tiny_pipeline

README = """---
base_model: someone/tiny
license: mit
---

# A title

## Use

code

## Training

- steps: 3
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/`: a tiny teacher and its students, none of them as at its start."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    return root


def make_project(root: Path) -> None:
    """Write the models below `root/models`."""
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(root / "models/teacher")
    unet = pipeline.unet
    student = factorise_unet(unet, plan_ranks(unet))[0]
    student.save_pretrained(root / "models/unet/elr")
    _describe(root, "unet/elr")
    _lean(root, unet)
    add_scale_embedding(unet).save_pretrained(root / "models/guidance/told")
    _describe(root, "guidance/told", Sampling(1, [2.0, 5.0], True), backbone="teacher")
    controlnet = tiny_controlnet(unet)
    for name in ("original", "distilled", "loha"):
        small = unlike_start(build_student(controlnet, PRESETS[name], seed=0))
        small.save_pretrained(root / "models/controlnet" / name)
        _describe(root, f"controlnet/{name}", kinds=("canny",))
    ControlAdapter.from_unet(student, kronecker=KRONECKER).save_pretrained(
        root / "models/control/elr"
    )
    _describe(root, "control/elr", kinds=("canny", "sketch"), backbone="unet/elr")
    for name, base in (("lora_distill", unet), ("lora_distill_elr", student)):
        lora = unlike_start(add_lora(base, r=2, alpha=3.0, targets="attention", seed=0))
        save_lora(lora, root / "models/guidance" / name)
        backbone = "teacher" if base is unet else "unet/elr"
        _describe(root, f"guidance/{name}", Sampling(1, 3.0), backbone=backbone)


def unlike_start(model: torch.nn.Module) -> torch.nn.Module:
    """Values in place of what is zero before training."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def other_controlnet() -> ControlNetModel:
    """A teacher's ControlNet, whose residuals are not zero."""
    return tiny_controlnet(tiny_pipeline().unet)


def _lean(root: Path, unet) -> None:
    """A student with two blocks less."""
    removed = ["up_blocks.1.attentions.0", "up_blocks.0.resnets.0"]
    gone = tuple(f"{name}." for name in removed)
    ranks = {name: rank for name, rank in plan_ranks(unet).items() if not name.startswith(gone)}
    lean = factorise_unet(unet, ranks, removed=removed)[0]
    lean.save_pretrained(root / "models/unet/lean")
    _describe(root, "unet/lean")


def _describe(
    root: Path, name: str, sampling: Sampling | None = None, kinds: tuple = (), **bases: str
) -> None:
    folder = root / "models" / name
    bases = {"teacher": "teacher", **bases}
    builds_on = {key: base_of(root / "models" / base, folder) for key, base in bases.items()}
    family, _, variant = name.partition("/")
    sampling = sampling or Sampling()
    write_description(folder, Description(family, variant, builds_on, kinds, sampling))
    (folder / "README.md").write_text(README)
