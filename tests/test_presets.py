"""Presets hold what differs from params.yaml, say what they are for, and give what they gave."""

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from distillery.params import Params
from distillery.params.merge import lay_over, section_at
from distillery.params.presets import load_preset, preset_names

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "params.yaml"
PRESETS = preset_names(ROOT / "presets")
FILES = [ROOT / f"presets/{name}.yaml" for name in PRESETS]


def _params(name: str) -> Params:
    return load_preset(ROOT / f"presets/{name}.yaml", SHIPPED)


def _values(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def _same(base: Any, given: Any, section: Any = Params, at: str = "") -> list[str]:
    """Keys of a preset that say what the base says already."""
    if section is None or not isinstance(base, dict):
        return [at] if base == given else []
    return [
        key
        for name in given
        for key in _same(base[name], given[name], section_at(section, name), f"{at}.{name}")
    ]


def test_presets_are_those_that_the_pages_name() -> None:
    assert PRESETS == [
        "laion",
        "photos",
        "quick",
        "scenes",
        "scenes-full",
        "scenes-latency",
        "sd-turbo",
        "sd15",
        "sd21",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_preset_is_short_and_holds_what_differs(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60
    assert _same(_values(SHIPPED), _values(path)) == []
    load_preset(path, SHIPPED)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_introduces_itself(name: str) -> None:
    head = (ROOT / f"presets/{name}.yaml").read_text().split("\n\n")[0]
    assert f"Preset: {name}." in head
    assert "Cost: " in head
    assert "Start: " in head


def test_scenes_is_what_ships() -> None:
    assert _values(ROOT / "presets/scenes.yaml") == {}
    assert _params("scenes").model_dump() == Params.model_validate(_values(SHIPPED)).model_dump()


def test_editors_take_whole_files_and_presets() -> None:
    schemas = ROOT / "workflow/schemas"
    jsonschema.validate(_values(SHIPPED), json.loads((schemas / "params.schema.json").read_text()))
    partial = json.loads((schemas / "preset.schema.json").read_text())
    for path in FILES:
        jsonschema.validate(_values(path), partial)
    wrong = {"distill_unet": {"variants": {"mine": {"steps": 3}}}}  # an entry is never partial
    with pytest.raises(jsonschema.ValidationError, match="is a required property"):
        jsonschema.validate(wrong, partial)


def test_full_preset_differs_where_it_says() -> None:
    scenes, full = _params("scenes"), _params("scenes-full")
    assert full.seeds == [0, 1, 2]
    paper = {"standard_no_kd", "decomposed_no_kd", "elr", "svd_only", "random_kd", "svd_no_kd"}
    assert set(full.distill_unet.variants) == paper | {
        "elr_balanced", "elr_data_aware", "elr_planned", "planned",
    }  # fmt: skip
    changed = {"seeds", "ingest", "init_student", "generate", "evaluate", "profile",
               "extract_conditions", "cache_teacher"}  # fmt: skip
    kinds = ["canny", "sketch", "segmentation", "depth"]
    assert full.extract_conditions.kinds == full.cache_teacher.control_kinds == kinds
    assert full.finetune_control.conditions == kinds
    changed |= {"distill_unet", "finetune_control", "distill_controlnet", "distill_guidance"}
    assert scenes.model_dump(exclude=changed) == full.model_dump(exclude=changed)


def test_stable_diffusion_presets_invent_no_hash() -> None:
    for name in ("sd15", "sd21", "sd-turbo"):
        params = _params(name)
        assert params.device == "cuda"
        assert params.prepare_teacher.sha256 == {}
        assert all(v.steps == 0 or v.steps >= 1000 for v in params.distill_unet.variants.values())


def test_a_preset_starts_as_its_head_says(tmp_path: Path, python: Path) -> None:
    """Snakemake takes the partial file as it is, and its variants are the preset's, not both's."""
    text = (ROOT / "presets/photos.yaml").read_text()
    preset = tmp_path / "photos.yaml"
    preset.write_text(text.replace("path: data/photos", f"path: {tmp_path}"))
    command = [python / "python", "workflow/jobs.py", "--config-file", str(preset)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    labels = {json.loads(line)["label"] for line in done.stdout.splitlines()}
    assert {label for label in labels if label.startswith("distill_controlnet/")} == {
        "distill_controlnet/distilled"
    }


def test_merging_is_what_snakemake_and_use_do() -> None:
    merged = lay_over(_values(SHIPPED), _values(ROOT / "presets/photos.yaml"))
    assert merged == _params("photos").model_dump(mode="json")
