"""Distances of predictions, with models of random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel

from distillery.core.errors import DistilleryError
from distillery.core.run import Run
from distillery.families import family_of
from distillery.families.description import Description, Sampling, write_description
from distillery.families.distances import Asking, distances_of, prediction_distances
from distillery.families.load import Folders, load_student
from distillery.families.pairings import Pairing, pairing
from distillery.metrics.evaluation import Records
from distillery.metrics.prediction_distance import (
    controlled,
    guided,
    make_probe,
    plain,
    relative_distances,
)
from distillery.models import gate
from distillery.models.lora.files import save_lora
from distillery.models.lora.layers import add_lora
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks
from distillery.teacher.load import Teacher, encode_prompts, load_teacher

CAPTIONS = ["a red circle", "a blue square", "a star", "a green ring"]
KEYS = [f"{i:09d}" for i in range(4)]
REAL = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
RECORDS = Records(KEYS, CAPTIONS, REAL, ["canny"] * 4)
ASKING = Asking(num_records=4, num_slots=2, plan_seed=0, num_bootstrap=100, resolution_px=64)


@pytest.fixture(scope="module")
def teacher(tiny_teacher: Path) -> Teacher:
    return load_teacher(tiny_teacher, "cpu", torch.float32)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("evaluate/x", "f" * 64, tmp_path / "work")


def _nothing(count: int) -> None:
    return None


def test_distance_is_zero_for_the_teacher_and_one_for_nothing(teacher: Teacher):
    probe = make_probe(teacher, REAL[:3], CAPTIONS[:3], KEYS[:3], 0, 2)
    expected = probe.ask(plain(teacher.unet), _nothing)
    assert relative_distances(expected, expected, 2).tolist() == [0, 0, 0]
    nothing = relative_distances(torch.zeros_like(expected), expected, 2)
    assert nothing.mean() == pytest.approx(1, rel=1e-6)
    manual = [(expected[2 * i : 2 * i + 2] ** 2).mean() / (expected**2).mean() for i in range(3)]
    np.testing.assert_allclose(nothing, manual, rtol=1e-5)


def test_the_guided_teacher_is_two_evaluations(teacher: Teacher):
    probe = make_probe(teacher, REAL, CAPTIONS, KEYS, 0, 2)
    found = probe.ask(guided(plain(teacher.unet), 3.0), _nothing)
    empty = encode_prompts(teacher, [""]).expand(8, -1, -1)
    with torch.no_grad():
        outputs = [
            teacher.unet(probe.noisy, probe.timesteps, encoder_hidden_states=text).sample
            for text in (probe.text, empty)
        ]
    torch.testing.assert_close(found, 3 * outputs[0] - 2 * outputs[1], atol=1e-5, rtol=1e-4)
    assert torch.equal(probe.ask(plain(teacher.unet), _nothing), outputs[0])


def test_a_controlnet_sees_its_own_records_map(teacher: Teacher):
    maps = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8) / 4
    probe = make_probe(teacher, REAL, CAPTIONS, KEYS, 0, 2, maps)
    seen = []

    def control(noisy, steps, *, encoder_hidden_states, controlnet_cond, return_dict):
        seen.extend(controlnet_cond[:, 0, 0, 0].tolist())
        shapes = [(32, 8), (32, 8), (32, 4), (64, 4)]
        down = [torch.zeros(len(noisy), width, side, side) for width, side in shapes]
        return down, torch.zeros(len(noisy), 64, 4, 4)

    output = probe.ask(controlled(teacher.unet, control), _nothing)
    assert seen == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    torch.testing.assert_close(output, probe.ask(plain(teacher.unet), _nothing))


def test_students_are_measured_per_seed_behind_the_export_gate(
    tiny_teacher: Path,
    teacher: Teacher,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    student = factorise_unet(teacher.unet, plan_ranks(teacher.unet))[0]
    student.save_pretrained(tmp_path / "model")
    teacher.unet.save_pretrained(tmp_path / "model" / "seed-7")

    def measure():
        folders = Folders(tiny_teacher, tmp_path / "model", 0, [0, 7], guidance_scale=3.0)
        return distances_of(run, "unet/x", folders, RECORDS, ASKING, torch.device("cpu"))

    found, reason = measure()
    assert reason == {}
    assert found[0]["prediction_distance"][0].value > 0.01
    assert found[7]["prediction_distance"][0].value == 0
    assert len(found[0]["prediction_distance"][0].per_image) == 4
    monkeypatch.setattr(gate, "TOLERANCE", -1.0)
    with pytest.raises(DistilleryError, match="outputs differ"):
        measure()


def test_the_unguided_teacher_is_judged_by_the_guided_one(
    tiny_teacher: Path, teacher: Teacher, run: Run
):
    folders = Folders(tiny_teacher, tiny_teacher, 0, [0], guidance_scale=3.0)
    found, _ = distances_of(run, "teacher/unguided", folders, RECORDS, ASKING, torch.device("cpu"))
    estimate, settings = found[0]["prediction_distance"]
    assert estimate.value > 0
    assert "scale 3" in settings["guidance"]


def test_guidance_and_control_students_are_loaded_on_their_own_models(
    teacher: Teacher, tiny_teacher: Path, tmp_path: Path
):
    """A LoRA on the teacher's U-Net, a copy of the teacher's ControlNet, and both together."""
    folder = tmp_path / "teacher"
    shutil.copytree(tiny_teacher, folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        control = ControlNetModel.from_unet(teacher.unet)
        for parameter in control.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    for name in ("controlnet_canny", "student"):
        control.save_pretrained(folder / name)
    unet = add_lora(load_teacher(tiny_teacher, "cpu", torch.float32).unet, r=2, alpha=2,
                    targets="attention", seed=0)  # fmt: skip
    save_lora(unet, tmp_path / "lora")
    described = Description("guidance", "lora", sampling=Sampling(1, 3.0))
    write_description(tmp_path / "lora", described)
    write_description(
        folder / "student", Description("controlnet", "student", condition_kinds=["canny"])
    )
    maps = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    probe = make_probe(teacher, REAL, CAPTIONS, KEYS, 0, 1, maps)
    models = {
        "guidance/x": tmp_path / "lora", "controlnet/x": folder / "student",
        "whole/x": tmp_path / "lora",
    }  # fmt: skip
    for variant, model in models.items():
        wanted = family_of(variant).predicts("x")
        folders = Folders(folder, model, 0, [0], folder, folder / "student")
        pair = pairing(
            wanted, teacher, control.eval() if wanted.has_control else None,
            lambda seed: load_student(variant, folders), 1.0,  # noqa: B023
        )  # fmt: skip
        outputs = [probe.ask(p, _nothing) for p in (pair.student(0), pair.expected)]
        torch.testing.assert_close(*outputs, atol=2e-5, rtol=1e-3)
    without = probe.ask(plain(teacher.unet), _nothing)
    assert (outputs[0] - without).abs().max() > 1e-3


def test_any_pair_of_predictions_can_be_compared(teacher: Teacher, run: Run):
    pair = Pairing(
        plain(teacher.unet), lambda seed: lambda q: 2 * plain(teacher.unet)(q), {"guidance": "x"}
    )
    found = prediction_distances(run, teacher, pair, [0], RECORDS, ASKING)
    assert found[0]["prediction_distance"][0].value == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("variant", ["control/elr", "teacher/guided"])
def test_variants_without_a_teacher_say_so(variant: str, run: Run, tmp_path: Path):
    folders = Folders(tmp_path, tmp_path, 0, [0], guidance_scale=3.0)
    found, reason = distances_of(run, variant, folders, RECORDS, ASKING, torch.device("cpu"))
    assert found == {}
    assert "no teacher" in reason["prediction_distance"]
