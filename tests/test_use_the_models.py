"""Runs the code of docs/use-the-models.md on a tiny project folder, as a reader would."""

import contextlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from diffusers import ControlNetModel, UNet2DConditionModel

from distillery.cli import main
from distillery.families.card import snippet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel
from distillery.params.presets import load_preset
from export.conftest import make_project
from tiny_models import tiny_pipeline

REPOSITORY = Path(__file__).parents[1]
SECTIONS = {
    "Take a student elsewhere": "from-hub.png",
    "Control adapter": "controlled.png",
    "Student ControlNet": "student-control.png",
    "Guidance in one evaluation": "guided.png",
    "The whole student": "whole.png",
}
LORA = {"backbone": "teacher", "update": "lora", "objective": "teacher",
        "scale_low": 3.0, "scale_high": 3.0}  # fmt: skip
WHOLE = {"backbone": "unet/elr", "guidance": "lora_distill_elr", "controlnet": "distilled"}
# Every kind of code that a card has, with what it is made from.
CARDS = {
    "unet/elr": {},
    "control/elr": {"backbone": "unet/elr", "kinds": ["canny", "sketch", "segmentation"]},
    "controlnet/distilled": {},
    "guidance/lora_distill": LORA,
    "guidance/lora_distill_elr": {**LORA, "backbone": "unet/elr"},
    "guidance/told": {**LORA, "update": "full", "scale_high": 5.0},
    "whole/student": {**WHOLE, "lora": {**LORA, "backbone": "unet/elr"}},
}
EACH_APART = """
import contextlib, io, json, sys
printed = {}
for name, code in json.load(sys.stdin).items():
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, name, "exec"), {"__name__": "__main__"})
    printed[name] = said.getvalue()
with open("printed.json", "w") as file:
    json.dump(printed, file)
"""


def code_of(section: str) -> str:
    """The Python blocks below one heading of the page, in order."""
    page = (REPOSITORY / "docs" / "use-the-models.md").read_text(encoding="utf-8")
    body = page.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)
    assert blocks
    return "\n".join(blocks)


def card_image(name: str) -> str:
    """Where the code of a card saves its image."""
    return f"card-{name.replace('/', '-')}.png"


def run_exports(project: Path) -> None:
    """The page's `distillery export` commands, as they stand there, in the project's folder."""
    page = (REPOSITORY / "docs" / "use-the-models.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ distillery (export .*)$", page, flags=re.MULTILINE)
    assert len(commands) == 8
    params = load_preset(REPOSITORY / "presets/quick.yaml", REPOSITORY / "params.yaml")
    (project / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    with contextlib.chdir(project):
        for command in commands:
            with pytest.raises(SystemExit) as ended:
                main(command.split())
            assert not ended.value.code, command


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with a model of every family, as its stages would have left them."""
    root = tmp_path_factory.mktemp("project")
    make_project(root)
    for model in ("unet/elr", "guidance/lora_distill_elr"):
        shutil.copytree(root / "models" / model, root / "models" / model.replace("elr", "planned"))
    return root


@pytest.fixture(scope="module")
def printed(project: Path, python: Path) -> dict[str, str]:
    """What the page's sections and the cards print, each run with names of its own.

    In one fresh process for all: importing takes longer than running.
    """
    run_exports(project)
    snippets = {name: code_of(name) for name in ("Low-rank U-Net", *SECTIONS)}
    for name, settings in CARDS.items():
        code = snippet(name, settings)
        snippets[name] = code.replace("image.png", card_image(name))
    shorter = {
        name: re.sub(r'pipeline\(("a red \w+")', r"pipeline(\1, num_inference_steps=2", code)
        for name, code in snippets.items()
    }
    done = subprocess.run(
        [python / "python", "-c", EACH_APART], input=json.dumps(shorter), cwd=project,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((project / "printed.json").read_text())


def test_low_rank_section_runs(project: Path, printed: dict[str, str]):
    said = printed["Low-rank U-Net"]
    assert (project / "student.png").stat().st_size > 0
    assert float(re.search(r"largest difference (\S+)", said)[1]) < 1e-4
    assert type(UNet2DConditionModel.from_pretrained(project / "student-dense/unet")) is (
        UNet2DConditionModel
    )
    made = LowRankUNet2DConditionModel.from_pretrained(project / "my-student")
    assert made.config.ranks == plan_ranks(tiny_pipeline().unet)
    assert "'total': 788273515" in said


def test_the_exports_are_where_the_page_puts_them(project: Path, printed: dict[str, str]):
    made = {path.name for path in (project / "out").iterdir()}
    assert made == {"elr", "elr.safetensors", "guidance.safetensors", "elr-hub", "canny-hub",
                    "whole", "distillery_node.py"}  # fmt: skip


def test_a_single_file_is_read_without_a_network(project: Path, printed: dict[str, str]):
    assert (project / "from-file.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("model", "kind"),
    [("unet/elr", UNet2DConditionModel), ("controlnet/distilled", ControlNetModel)],
)
def test_the_error_of_a_wrong_class_is_the_one_that_pages_name(project: Path, model: str, kind):
    with pytest.raises(OSError, match="found in directory") as found:
        kind.from_pretrained(project / "models" / model)
    said = str(found.value).split(str(project))[0].strip()
    for page in ("README.md", "docs/use-the-models.md"):
        text = " ".join((REPOSITORY / page).read_text(encoding="utf-8").split())
        assert said in text


@pytest.mark.parametrize("section", SECTIONS)
def test_other_families_run(project: Path, printed: dict[str, str], section: str):
    assert section in printed
    assert (project / SECTIONS[section]).stat().st_size > 0


@pytest.mark.parametrize("name", CARDS)
def test_the_snippets_of_model_cards_run(project: Path, printed: dict[str, str], name: str):
    assert name in printed
    assert (project / card_image(name)).stat().st_size > 0
