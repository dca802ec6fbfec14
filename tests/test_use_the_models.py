"""Runs the code of docs/use-the-models.md on a tiny project folder, as a reader would."""

import os
import re
import subprocess
import sys
from pathlib import Path

from diffusers import UNet2DConditionModel

from distillery.models.lowrank import LowRankUNet2DConditionModel
from distillery.models.ranks import plan_ranks
from tiny_models import tiny_pipeline, tiny_unet

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
