"""Committed profiles become settings: measured, analytic, and at another size apart."""

import csv
from pathlib import Path

import pytest

from distillery.core.artifacts import write_json
from distillery.report import costs, tables
from distillery.report.evidence import Results, read_run
from distillery.report.full_size import HALF_PRECISION, decides, read_full_size
from distillery.report.prices import SPEED

MEASURED_CPU = {"peak_allocated_bytes": None, "status": "measured"}
WHOLE, TEACHER = "sd21/whole/student", "sd21/whole/teacher"


def entry(seconds: float | None, peak: float, batch_size: int = 1, **more) -> dict:
    found = {"status": "predicted only", "predicted_bytes": {"peak": peak}}
    if seconds is None:
        return found
    times = {"seconds": seconds, "seconds_range": [0.9 * seconds, 1.2 * seconds]}
    each = {"seconds_per_image": seconds / batch_size, "samples_s": [seconds] * 3}
    return {**found, **MEASURED_CPU, **times, **each, **more}


def row(parameters: int, macs: int, batches: dict) -> dict:
    return {
        "per": "denoising step of an image", "parameters": {"total": parameters}, "macs": macs,
        "macs_resolution_px": 512, "batches": batches,
    }  # fmt: skip


def write(folder: Path, rows: dict, name: str, device: str, px: int) -> None:
    settings = {"preset": "sd21", "resolution_px": px}
    record = {"date": name[:10], "device": device, "rows": rows, "settings": settings}
    write_json(folder / "profile" / f"{name}.json", record)


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Results]:
    """Predicted at the own size; measured on a CPU at another."""
    image = {"seconds_per_image": 60.0, "seconds_range": [55.0, 70.0], "how": "50 x this step"}
    student = {"1": entry(None, 1.9e9), "8": entry(None, 3.1e9, 8)}
    teacher = {"1": entry(None, 5.3e9), "8": entry(None, 7.7e9, 8)}
    rows = {
        "inference/whole/student": row(424_000_000, 229_000_000_000, student),
        "inference/whole/teacher": row(1_230_000_000, 1_088_000_000_000, teacher),
    }
    write(tmp_path, rows, "2026-01-02-sd21-cpu", "cpu", 512)
    student = {"1": entry(1.0, 1e9, image=image), "8": entry(4.0, 1.2e9, 8)}
    rows["inference/whole/student"] = row(424_000_000, 229_000_000_000, student)
    rows["inference/whole/teacher"]["batches"] = {"1": entry(3.0, 5e9), "8": entry(20.0, 6e9, 8)}
    write(tmp_path, rows, "2026-01-03-sd21-cpu-256px", "cpu", 256)
    return {r.setting: r for r in read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)}


def test_other_sizes_stand_apart_and_do_not_decide(found):
    assert list(found) == ["sd21-cpu-256px", "sd21-analytic"]
    assert [decides(results) for results in found.values()] == [False, True]


def test_counts_and_predictions_at_the_own_size_are_analytic(found):
    analytic = found["sd21-analytic"]
    macs = [analytic.metric(model, "macs") for model in (TEACHER, WHOLE)]
    assert macs[0]["value"] / macs[1]["value"] == pytest.approx(1088 / 229)
    assert macs[0]["settings"]["basis"] == "counted"
    assert analytic.metric(WHOLE, "parameters_evaluated")["value"] == 424_000_000
    memory = analytic.metric(WHOLE, "memory_batch8_bytes")
    assert (memory["value"], memory["settings"]["basis"]) == (3.1e9, "predicted")
    assert analytic.metric(WHOLE, "latency_s") is None


def test_times_are_per_image_with_their_range(found):
    measured = found["sd21-cpu-256px"]
    batch8 = measured.metric(WHOLE, "latency_batch8_s")
    assert (batch8["value"], batch8["n"]) == (0.5, 3)
    assert (batch8["ci_low"], batch8["ci_high"]) == pytest.approx((0.45, 0.6))
    image = measured.metric(WHOLE, "image_s")
    assert (image["value"], image["settings"]["basis"]) == (60.0, "predicted")
    assert image["settings"]["how"] == "50 x this step"
    assert measured.metric(WHOLE, "memory_bytes") is None  # predicted at no size of the paper's


def test_tables_and_page_have_them(found, tmp_path):
    tables.write_csv(tmp_path / "speed.csv", tables.profile_table(found.values(), SPEED))
    with (tmp_path / "speed.csv").open() as file:
        rows = {(r["row"], r["metric"], r["setting"]): r for r in csv.DictReader(file)}
    latency = rows["sd21_whole_student", "latency_s", "sd21-cpu-256px"]
    assert (latency["ours"], latency["source"]) == ("1.0", "measured")
    assert ("sd21_whole_student", "memory_bytes", "sd21-analytic") in rows
    page = costs.cost_tables(read_run(tmp_path, "scenes", (0,)), list(found.values()))
    titles = {table["title"]: table for table in page}
    counted = titles["At full size, sd21-analytic: parameters"]
    assert counted["columns"] == ["as evaluated", "MACs"]
    assert [row["label"] for row in counted["rows"]] == [
        "Whole student", "Guided teacher with ControlNet",
    ]  # fmt: skip
    note = titles["At full size, sd21-cpu-256px: speed and memory"]["note"]
    assert "processor time" in note


def test_memory_measured_on_a_gpu_comes_from_the_allocator(tmp_path):
    batches = {"1": entry(0.1, 5e9) | {"peak_allocated_bytes": 4.8e9}}
    rows = {"inference/controlnet/loha": row(57_000_000, 39_000_000_000, batches)}
    write(tmp_path, rows, "2026-01-02-sd21", "A GPU", 512)
    full_size = read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)
    found = {results.setting: results for results in full_size}
    memory = found["sd21-cuda"].metric("sd21/controlnet/loha", "memory_bytes")
    assert (memory["value"], memory["settings"]["basis"]) == (4.8e9, "measured")
    assert all(decides(results) for results in full_size)


def test_files_of_one_setting_are_joined_and_all_dates_shown(tmp_path):
    for date, seconds in (("2026-01-02", 0.1), ("2026-01-05", 0.2)):
        loha = row(57_000_000, 39_000_000_000, {"1": entry(seconds, 5e9)})
        rows = {"inference/controlnet/loha": loha, f"inference/controlnet/at_{date}": loha}
        write(tmp_path, rows, f"{date}-sd21", "A GPU", 512)
    found = {r.setting: r for r in read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)}
    gpu = found["sd21-cuda"]
    assert gpu.date == "2026-01-02, 2026-01-05"
    assert gpu.metric("sd21/controlnet/loha", "latency_s")["value"] == 0.2  # the newest counts
    assert gpu.metric("sd21/controlnet/at_2026-01-02", "latency_s")["value"] == 0.1


def test_steps_of_more_images_stand_apart_and_mask_nothing(tmp_path: Path):
    def step(seconds: float, peak: float) -> dict:
        return {"parameters": {"total": 5}, "seconds_per_iteration": seconds,
                "peak_allocated_bytes": peak}  # fmt: skip

    for batch_size, seconds in ((1, 0.2), (8, 0.6)):
        settings = {"preset": "sd15", "resolution_px": 512, "batch_size": batch_size}
        record = {"date": "2026-01-02", "device": "NVIDIA H100", "settings": settings,
                  "rows": {"elr": step(seconds, 1e9 * batch_size)}}  # fmt: skip
        write_json(tmp_path / "profile" / f"2026-01-02-batch{batch_size}.json", record)
    found = {r.setting: r for r in read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)}
    assert list(found) == ["sd15-cuda-batch8", "sd15-cuda", "sd15-analytic"]
    steps = {s: r.metric("sd15/control/elr", "train_step_s") for s, r in found.items()}
    assert [steps["sd15-cuda"]["value"], steps["sd15-cuda-batch8"]["value"]] == [0.2, 0.6]
    assert decides(found["sd15-cuda"])
    assert not decides(found["sd15-cuda-batch8"])


def test_recomputed_activations_stand_apart(tmp_path: Path):
    settings = {"preset": "sd15", "batch_size": 8, "dtype": "bf16", "checkpointing": True}
    row = {"parameters": {"total": 5}, "peak_allocated_bytes": 2e9,
           "predicted_bytes": {"peak": 1e9}}  # fmt: skip
    record = {"date": "2026-01-02", "device": "NVIDIA H100", "settings": settings,
              "rows": {"elr": row}}  # fmt: skip
    write_json(tmp_path / "profile" / "a.json", record)
    (found,) = read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)
    assert found.setting == "sd15-cuda-batch8-bf16-checkpointing"
    assert found.metric("sd15/control/elr", "train_memory_bytes")["value"] == 2e9


def test_half_precision_stands_apart_and_predicts_nothing(tmp_path: Path):
    entries = {"1": {**entry(0.02, 2e9), "peak_allocated_bytes": 3e9}, "8": entry(None, 4e9, 8)}
    rows = {"inference/unet/dense": row(860_000_000, 400_000_000_000, entries)}
    settings = {"preset": "sd21", "resolution_px": 512, "dtype": "fp16"}
    record = {"date": "2026-01-04", "device": "NVIDIA H100", "rows": rows, "settings": settings}
    write_json(tmp_path / "profile" / "a.json", record)
    (found,) = read_full_size(read_run(tmp_path, "scenes", (0,)), tmp_path)
    assert found.setting == "sd21-cuda-fp16"
    assert not decides(found)
    assert decides(found, HALF_PRECISION)
    assert found.metric("sd21/unet/dense", "latency_s")["value"] == 0.02
    assert found.metric("sd21/unet/dense", "memory_batch8_bytes") is None
