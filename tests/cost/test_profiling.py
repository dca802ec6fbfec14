from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from distillery.cost.profile import load_shared, num_rounds, profile_file, profile_models
from distillery.cost.timing import median_seconds, time_in_turn, training_job
from distillery.cost.workload import Profiled, Workload
from distillery.families.description import Description, base_of, write_description
from distillery.families.profiled import open_models
from distillery.models.control_adapter.adapter import ControlAdapter
from distillery.models.load import load_unet
from distillery.models.lora.files import save_lora
from distillery.models.lora.layers import add_lora
from distillery.models.lowrank.factorise import factorise_unet
from distillery.models.lowrank.ranks import plan_ranks

KRONECKER = {
    "n": 4, "r": 2, "alpha": 2.0, "share_A": True, "zero": "v", "indivisible": "error",
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Profiled]:
    models = tmp_path_factory.mktemp("models")
    unet = load_unet(tiny_teacher)
    student = factorise_unet(unet, plan_ranks(unet))[0]
    for name, model, backbone in (
        ("unet/elr", student, None),
        ("control/elr", ControlAdapter.from_unet(student, kronecker=KRONECKER), "unet/elr"),
        ("controlnet/small", ControlNetModel.from_unet(unet), None),
    ):
        model.save_pretrained(models / name)
        _describe(models / name, {"backbone": models / backbone} if backbone else {})
    lora = models / "guidance" / "lora"
    save_lora(add_lora(load_unet(tiny_teacher), r=2, alpha=2.0, targets="all", seed=0), lora)
    _describe(lora, {"backbone": tiny_teacher})
    return open_models(tiny_teacher, models, {}, torch.device("cpu"))


def _describe(folder: Path, bases: dict[str, Path]) -> None:
    named = {name: base_of(path, folder) for name, path in bases.items()}
    write_description(folder, Description(folder.parent.name, folder.name, named))


@pytest.fixture(scope="module")
def profile(tiny_teacher: Path, opened: dict[str, Profiled]) -> dict:
    counts: list[int] = []
    found = profile_models(
        opened, load_shared(tiny_teacher), torch.device("cpu"), batch_size=1, num_repeats=2,
        on_repeat=counts.append,
    )  # fmt: skip
    assert sum(counts) == num_rounds(opened, 2)
    return profile_file(found, torch.device("cpu"), teacher=tiny_teacher)


def test_each_family_says_what_it_trains_and_adds(profile: dict):
    found = {name: metric["value"] for name, metric in profile["metrics"].items()}
    assert found["control/elr/parameters_in_optimiser"] < found["control/elr/parameters_adapter"]
    small = "controlnet/small/parameters"
    assert found[f"{small}_in_optimiser"] == found[f"{small}_adapter"] > 0
    assert found["guidance/lora/parameters_unet"] == found["teacher/parameters_unet"]
    lora = "guidance/lora/parameters"
    assert found[f"{lora}_in_optimiser"] == found[f"{lora}_adapter"] > 0


def test_guidance_costs_two_evaluations_and_control_its_own(profile: dict):
    found = {name: metric["value"] for name, metric in profile["metrics"].items()}
    for both in ("teacher_batched", "teacher_two_calls"):
        assert found[f"guidance/{both}/macs"] == 2 * found["teacher/macs"]
    assert found["control/elr/macs"] > found["unet/elr/macs"]
    assert "guidance/teacher_batched/train_step_s" not in found


def test_what_is_evaluated_is_counted_apart_from_what_is_trained(profile: dict):
    """A LoRA is fused when it is timed, a ControlNet timed without its U-Net."""
    found = profile["metrics"]
    lora = {name: found[f"guidance/lora/{name}"] for name in ("parameters_evaluated", "latency_s")}
    unet = found["teacher/parameters_unet"]["value"]
    assert lora["parameters_evaluated"]["value"] == unet
    assert lora["parameters_evaluated"]["settings"]["of"] == lora["latency_s"]["settings"]["per"]
    assert "LoRA beside its base" in found["guidance/lora/parameters_unet"]["settings"]["of"]
    assert "trains" in found["guidance/lora/train_step_s"]["settings"]["per"]
    small = found["controlnet/small/parameters_evaluated"]["value"]
    assert small == found["controlnet/small/parameters_adapter"]["value"]
    if not torch.cuda.is_available():
        assert found["guidance/lora/memory_bytes"]["value"] == 4 * unet


def test_counts_are_exact_and_say_so(profile: dict, tiny_teacher: Path):
    unet = load_unet(tiny_teacher)
    metric = profile["metrics"]["teacher/parameters_unet"]
    assert metric["value"] == sum(p.numel() for p in unet.parameters())
    assert metric["ci_low"] == metric["value"] == metric["ci_high"]
    assert metric["settings"]["basis"] == "counted"
    assert profile["metrics"]["unet/elr/parameters_unet"]["value"] < metric["value"]


def test_only_the_student_is_trained(profile: dict):
    found = {name: metric["value"] for name, metric in profile["metrics"].items()}
    assert found["teacher/parameters_in_optimiser"] == 0
    assert found["teacher/parameters_requires_grad"] == 0
    assert found["unet/elr/parameters_in_optimiser"] == found["unet/elr/parameters_unet"]


def test_the_papers_architecture_has_its_printed_size(profile: dict):
    found = profile["metrics"]
    assert found["sd21/dense/parameters_total"]["value"] == 1_289_952_427
    assert found["sd21/low_rank/parameters_total"]["value"] == pytest.approx(788.3e6, abs=0.05e6)


def test_the_papers_controlnets_have_their_sizes(profile: dict):
    found = profile["metrics"]
    sizes = {"teacher": 364.2e6, "reduced_channel": 183.7e6, "loha": 57.3e6}
    for name, size in sizes.items():
        value = found[f"sd21/controlnet/{name}/parameters_adapter"]["value"]
        assert value == pytest.approx(size, rel=0.005), name
    macs = {n: found[f"sd21/controlnet/{n}/macs"]["value"] for n in ("teacher", "distilled")}
    assert macs["teacher"] > 5 * macs["distilled"]


def test_memory_without_a_device_is_predicted_not_measured(profile: dict):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device, so memory is measured")
    memory = profile["metrics"]["unet/elr/train_memory_bytes"]
    assert memory["settings"]["basis"] == "predicted"
    assert memory["value"] == 16 * profile["metrics"]["unet/elr/parameters_unet"]["value"]


def test_times_are_positive_and_inside_their_range(profile: dict):
    for name in ("teacher/latency_s", "unet/elr/train_step_s"):
        metric = profile["metrics"][name]
        assert 0 < metric["ci_low"] <= metric["value"] <= metric["ci_high"]
        assert metric["n"] == 2


def test_models_are_timed_in_turn_after_one_round():
    calls: list[str] = []
    jobs = {name: lambda name=name: calls.append(name) for name in "ab"}
    found = time_in_turn(jobs, 2, 1, lambda count: None)
    assert calls == ["a", "b"] * 3
    assert found["a"][0].n == 2


def test_the_median_is_of_the_samples():
    estimate, settings = median_seconds([3.0, 1.0, 2.0, 10.0, 2.5], 4)
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (2.5, 1.0, 10.0)
    assert settings["quartiles"] == [2.0, 3.0]


def test_a_training_step_is_a_real_one(tiny_teacher: Path):
    unet = load_unet(tiny_teacher).requires_grad_(True)
    before = unet.conv_in.weight.detach().clone()
    workload = Workload.of(unet, 1, 5)
    training_job(lambda work: work.run(unet), workload, list(unet.parameters()))()
    assert unet.conv_in.weight.grad is None
    assert torch.equal(unet.conv_in.weight, before)
    assert Workload.of(unet, 3, 5).run(unet).shape[0] == 3
