"""Every shipped preset loads, says what it is for, and the generated documents are current."""

import re
from pathlib import Path

import pytest

from distillery.params import load_params

ROOT = Path(__file__).resolve().parent.parent
PRESETS = ["scenes", "scenes-full", "photos", "sd15", "sd21", "sd-turbo"]


@pytest.mark.parametrize("name", PRESETS)
def test_preset_loads_and_introduces_itself(name: str) -> None:
    path = ROOT / f"presets/{name}.yaml"
    load_params(path)
    comment = path.read_text().split("\nseed:")[0]
    assert f"Preset: {name}." in comment
    assert "Start: " in comment


def test_no_preset_is_untested() -> None:
    assert {path.stem for path in (ROOT / "presets").glob("*.yaml")} == {*PRESETS, "scenes-teacher"}


def test_default_is_the_scenes_preset() -> None:
    assert (ROOT / "presets/scenes.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()


def test_full_preset_differs_where_it_says() -> None:
    scenes, full = (load_params(ROOT / f"presets/{n}.yaml") for n in ("scenes", "scenes-full"))
    assert full.seeds == [0, 1, 2]
    paper = {"standard_no_kd", "decomposed_no_kd", "elr", "svd_only", "random_kd", "svd_no_kd"}
    assert set(full.distill_unet.variants) == paper | {
        "elr_balanced", "elr_data_aware", "elr_planned",
    }  # fmt: skip
    changed = {"seeds", "ingest", "init_student", "generate", "evaluate", "profile"}
    changed |= {"distill_unet", "finetune_control", "distill_controlnet", "distill_guidance"}
    assert scenes.model_dump(exclude=changed) == full.model_dump(exclude=changed)


def test_stable_diffusion_presets_invent_no_hash() -> None:
    for name in ("sd15", "sd21", "sd-turbo"):
        params = load_params(ROOT / f"presets/{name}.yaml")
        assert params.device == "cuda"
        assert params.prepare_teacher.sha256 == {}
        assert all(v.steps == 0 or v.steps >= 1000 for v in params.distill_unet.variants.values())


def test_every_parameter_is_described() -> None:
    rows = re.findall(r"^\| `(.+?)` \|.*\| (.*?) \|$", (ROOT / "docs/params.md").read_text(), re.M)
    assert len(rows) > 80
    assert [key for key, meaning in rows if not meaning.strip()] == []
