"""The README.md of model folders: complete, the same everywhere, and its code runs."""

import re
import subprocess
import sys

import pytest
import yaml

from distillery.families.card import CachedData, base_model, front_matter, readme, snippet
from project import ROOT

DATA = CachedData(
    num_train=1234, num_val=56, num_slots=4, resolution_px=64, content="0123456789abcdef" * 4
)
LORA = {"backbone": "teacher", "update": "lora", "objective": "teacher",
        "scale_low": 3.0, "scale_high": 3.0}  # fmt: skip


def test_it_says_what_its_training_knows():
    settings = {"steps": 300, "kinds": ("canny", "sketch"), "drop": {"text": 0.1}, "rank": None}
    text = readme("unet", "elr", "scenes", DATA, settings, (3, 5))
    assert text == readme("unet", "elr", "scenes", DATA, settings, (3, 5))
    for said in (
        "`reports/cards/unet/elr.md`", "1,234 training images and 56 for validation", "4 noise",
        "`0123456789abcdef`", "- steps: 300", "- kinds: canny, sketch", "- drop.text: 0.1",
        "- rank: none", "- seeds: 3 at the top, 5 in `seed-5/`", "## Limits", "## Licence",
        "## Base model",
    ):  # fmt: skip
        assert said in text, said


def test_the_front_matter_is_hugging_faces():
    fence, block, rest = front_matter("guidance", "scenes").split("---")
    assert (fence, rest) == ("", "")
    found = yaml.safe_load(block)
    assert found == {
        "library_name": "diffusers",
        "base_model": "scenes",
        "tags": ["diffusers", "text-to-image", "distillation", "guidance"],
        "license": "apache-2.0",
    }
    assert yaml.safe_load(front_matter("unet", "org/sd: x").split("---")[1])["license"] == "other"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("scenes", "scenes"),
        ("org/sd@main", "org/sd@main"),
        ("/data/someone/sd15", "sd15"),
        ("../sd15", "sd15"),
        ("~/sd15", "sd15"),
    ],
)
def test_no_absolute_path_is_told(source: str, name: str):
    assert base_model(source) == name
    text = readme("unet", "elr", source, DATA, {}, (0,))
    assert not re.search(r"(?<![\w.])/(data|home)", text)


def test_a_lora_on_the_teacher_needs_diffusers_alone():
    code = snippet("guidance/x", LORA)
    assert "distillery" not in code
    assert "guidance_scale=1)" in code
    assert "guidance_scale" not in snippet("guidance/x", LORA | {"objective": "noise"})


def test_a_student_that_is_told_its_scale_is_told_it():
    code = snippet("guidance/x", LORA | {"update": "full", "scale_high": 5.0})
    assert 'load_unet(Path("models/teacher/unet")), scale=5.0)' in code


def test_neither_torch_nor_jinja_is_imported():
    """The report, rules and params read families; importing torch costs 1.6 CPU seconds."""
    script = "import sys, distillery.families.card, distillery.families.names\n"
    script += "assert not {'torch', 'jinja2', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT / "src")
