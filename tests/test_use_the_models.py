"""Runs the code of docs/use-the-models.md on a tiny project folder, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.model_card import snippet
from distillery.models.control_adapter import ControlAdapter
from distillery.models.guidance_embedding import add_scale_embedding
from distillery.models.lora import add_lora
from distillery.models.lora_files import save_lora
from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.ranks import plan_ranks
from distillery.models.student_controlnet import PRESETS, build_student
from tiny_models import tiny_pipeline, tiny_unet

KRONECKER = {
    "n": 4, "r": 2, "alpha": 2.0, "share_A": True, "zero": "v", "indivisible": "error",
}  # fmt: skip
REPOSITORY = Path(__file__).parents[1]


def code_of(section: str) -> str:
    """The Python blocks below one heading of the page, in order."""
    page = (REPOSITORY / "docs" / "use-the-models.md").read_text(encoding="utf-8")
    body = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
    assert blocks
    return "\n".join(blocks)


def run(code: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_low_rank_section_runs(tmp_path):
    teacher = tiny_unet()
    tiny_pipeline().save_pretrained(tmp_path / "models/teacher")
    student = LowRankUNet2DConditionModel.from_dense(teacher, plan_ranks(teacher))
    student.save_pretrained(tmp_path / "models/unet/elr")

    printed = run(code_of("Low-rank U-Net"), tmp_path)

    assert (tmp_path / "student.png").stat().st_size > 0
    assert float(re.search(r"largest difference (\S+)", printed)[1]) < 1e-4
    assert type(UNet2DConditionModel.from_pretrained(tmp_path / "student-dense/unet")) is (
        UNet2DConditionModel
    )
    made = LowRankUNet2DConditionModel.from_pretrained(tmp_path / "my-student")
    assert made.config.ranks == plan_ranks(teacher)
    assert "'total': 788273515" in printed


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a model of every family, as its stages would have left them."""
    root = tmp_path_factory.mktemp("project")
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(root / "models/teacher")
    unet = pipeline.unet
    student = LowRankUNet2DConditionModel.from_dense(unet, plan_ranks(unet))
    student.save_pretrained(root / "models/unet/elr")
    ControlAdapter.from_unet(student, kronecker=KRONECKER).save_pretrained(
        root / "models/control/elr"
    )
    small = build_student(ControlNetModel.from_unet(unet), PRESETS["distilled"], seed=0)
    small.save_pretrained(root / "models/controlnet/distilled")
    add_scale_embedding(tiny_unet()).save_pretrained(root / "models/guidance/told")
    for name, base in (("lora_distill", unet), ("lora_distill_elr", student)):
        lora = add_lora(base, r=2, alpha=2.0, targets="attention", seed=0)
        save_lora(lora, root / "models/guidance" / name)
    return root


def test_the_snippets_of_model_cards_run(project: Path):
    """Every kind of code that a card has, in one process: importing takes longer than running."""
    lora = {"backbone": "teacher", "update": "lora", "objective": "teacher",
            "scale_low": 3.0, "scale_high": 3.0}  # fmt: skip
    on_elr = {"backbone": "unet/elr", "kinds": ["canny", "sketch", "segmentation"]}
    whole = {"backbone": "unet/elr", "guidance": "lora_distill_elr", "controlnet": "distilled"}
    cards = {
        "unet/elr": {},
        "control/elr": on_elr,
        "controlnet/distilled": {},
        "guidance/lora_distill": lora,
        "guidance/lora_distill_elr": {**lora, "backbone": "unet/elr"},
        "guidance/told": {**lora, "update": "full", "scale_high": 5.0},
        "whole/student": {**whole, "lora": {**lora, "backbone": "unet/elr"}},
    }
    parts = []
    for number, (name, settings) in enumerate(cards.items()):
        code = snippet(name.partition("/")[0], name, settings)
        parts.append(code.replace("image.png", f"card-{number}.png"))
    code = re.sub(
        r'pipeline\(("a red \w+")', r"pipeline(\1, num_inference_steps=2", "\n".join(parts)
    )
    run(code, project)
    for number in range(len(cards)):
        assert (project / f"card-{number}.png").stat().st_size > 0


def test_other_families_run_in_a_fresh_process(project: Path):
    """One process for all: importing takes longer than running."""
    sections = {
        "Control adapter": "controlled.png",
        "Student ControlNet": "student-control.png",
        "Guidance in one evaluation": "guided.png",
        "The whole student": "whole.png",
    }
    code = "\n".join(map(code_of, sections))
    run(re.sub(r'pipeline\(("a red \w+")', r"pipeline(\1, num_inference_steps=2", code), project)
    for image in sections.values():
        assert (project / image).stat().st_size > 0
