"""What jobs ask of a scheduler covers what they take, and grows with params and teacher."""

import pytest
import yaml

from distillery.params import Params
from distillery.params.demands import memory_mib, teacher_mib
from distillery.params.load import check_values
from distillery.params.merge import lay_over
from project import ROOT

# Largest resident sizes of the main job's stages, MiB, 2026-11-27 (work/runs).
TAKEN_MIB = {
    "profile": 1193, "report": 261, "prepare_teacher": 99, "ingest": 170, "deduplicate": 198,
    "curate": 177, "evaluate": 824, "cache_teacher": 697, "init_student": 537,
    "distill_guidance": 794, "generate": 867, "distill_unet": 803, "extract_conditions": 204,
    "distill_controlnet": 798, "finetune_control": 912,
}  # fmt: skip


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_main_job_fits_into_what_it_asks_for(default_params: Params, here: None) -> None:
    asked = {stage: memory_mib(default_params, stage) for stage in TAKEN_MIB}
    assert all(asked[stage] > taken for stage, taken in TAKEN_MIB.items()), asked
    assert max(asked.values()) < 4000


def test_a_vision_model_asks_for_more(default_params: Params) -> None:
    section = default_params.deduplicate.model_copy(update={"embedding": "models/clip"})
    asked = memory_mib(default_params.model_copy(update={"deduplicate": section}), "deduplicate")
    assert asked > memory_mib(default_params, "deduplicate") + 1500


def _stable_diffusion(**changed: object) -> Params:
    """The preset sd15, with the teacher still to be downloaded."""
    default, preset = (
        yaml.safe_load((ROOT / name).read_text()) for name in ("params.yaml", "presets/sd15.yaml")
    )
    return check_values(lay_over(lay_over(default, preset), changed), {}, "sd15")


def test_a_larger_teacher_and_batch_ask_for_more(default_params: Params) -> None:
    on_cpu = _stable_diffusion(device="cpu", ingest={"path": "x"})
    twice = _stable_diffusion(
        device="cpu", ingest={"path": "x"}, distill_unet={"training": {"batch_size": 32}}
    )
    asked = [memory_mib(params, "distill_unet") for params in (default_params, on_cpu, twice)]
    assert teacher_mib(on_cpu) > 5000
    assert asked[1] > 20 * asked[0]
    assert asked[2] > 1.5 * asked[1]


def test_on_a_gpu_activations_and_moments_are_not_the_hosts() -> None:
    on_gpu = _stable_diffusion(ingest={"path": "x"})
    assert 10_000 < memory_mib(on_gpu, "distill_unet") < 16_000
