"""A profile file that was damaged, edited or is something else is refused on one line."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from distillery.core.errors import DistilleryError
from distillery.report.evidence import read_run
from distillery.report.full_size import read_full_size

EVALUATED = {
    "per": "U-Net evaluation", "parameters": {"total": 9}, "macs": 8,
    "batches": {
        "8": {
            "seconds_per_image": 0.5, "seconds_range": [3.9, 4.2], "samples_s": [4.0],
            "peak_allocated_bytes": None, "predicted_bytes": {"peak": 7},
            "image": {"seconds_per_image": 2.0, "seconds_range": [1.9, 2.1], "how": "50 x"},
        },
    },
}  # fmt: skip
TRAINED = {
    "parameters": {"total": 9, "adapter": 0}, "predicted_bytes": {"peak": 7},
    "seconds_per_iteration": 0.5, "seconds_range": [0.4, 0.6], "peak_allocated_bytes": None,
}  # fmt: skip
GOOD = {
    "date": "2026-11-27", "device": "NVIDIA H100",
    "settings": {"preset": "sd15", "resolution_px": 512, "batch_size": 8, "dtype": "fp32"},
    "rows": {"inference/unet/dense": EVALUATED, "elr": TRAINED},
}  # fmt: skip
UNET, ENTRY = "rows.inference/unet/dense", "rows.inference/unet/dense.batches.8"
MISSING = object()


def settings_of(folder: Path, values: object) -> list[str]:
    (folder / "profile").mkdir()
    (folder / "profile/a.json").write_text(json.dumps(values))
    return [r.setting for r in read_full_size(read_run(folder, "scenes", (0,)), folder)]


def with_value(place: str, value: object) -> dict:
    """The good file with another value at `a.b.c`."""
    values = deepcopy(GOOD)
    *way, last = place.split(".")
    inner = values
    for name in way:
        inner = inner[name]
    inner.pop(last, None) if value is MISSING else inner.update({last: value})
    return values


def test_the_good_file_is_read(tmp_path: Path):
    found = settings_of(tmp_path, GOOD)
    assert set(found) == {"sd15-cuda", "sd15-cuda-batch8", "sd15-analytic", "sd15-analytic-batch8"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("date", 20261127),
        ("device", MISSING),
        ("device", ""),
        ("settings", []),
        ("settings.preset", 15),
        ("settings.resolution_px", "512"),
        ("settings.batch_size", 0),
        ("settings.batch_size", True),
        ("settings.dtype", "int8"),
        ("settings.checkpointing", "yes"),
        ("rows", MISSING),
        ("rows.elr", 5),
        ("rows.elr.parameters.total", "many"),
        ("rows.elr.seconds_per_iteration", -0.5),
        ("rows.elr.seconds_range", [0.4]),
        ("rows.elr.predicted_bytes.peak", None),
        ("rows.elr.predicted_bytes.peak", 10**400),
        (f"{UNET}.per", MISSING),
        (f"{UNET}.parameters", {}),
        (f"{UNET}.macs", "1e9"),
        (f"{UNET}.batches", None),
        (f"{UNET}.batches.x", EVALUATED["batches"]["8"]),
        (f"{UNET}.batches.0", EVALUATED["batches"]["8"]),
        (f"{UNET}.batches.08", EVALUATED["batches"]["8"]),
        (f"{ENTRY}.seconds_per_image", "fast"),
        (f"{ENTRY}.seconds_range", [1, 2, 3]),
        (f"{ENTRY}.seconds_range", [2, 1]),
        (f"{ENTRY}.seconds_range", MISSING),
        (f"{ENTRY}.samples_s", 3),
        (f"{ENTRY}.samples_s", []),
        (f"{ENTRY}.predicted_bytes", MISSING),
        (f"{ENTRY}.image.seconds_range", MISSING),
        (f"{ENTRY}.image.how", 50),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_key(tmp_path: Path, place: str, value: object):
    with pytest.raises(DistilleryError) as caught:
        settings_of(tmp_path, with_value(place, value))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'profile/a.json'}: {place}")
    assert message.endswith("; write it again with distillery profile --json")
    assert "\n" not in message


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1"])
def test_no_number_is_none(tmp_path: Path, number: str):
    values = with_value("rows.elr.seconds_per_iteration", float(number))
    with pytest.raises(DistilleryError, match=r"elr\.seconds_per_iteration: Input should be "):
        settings_of(tmp_path, values)


def test_what_fits_a_memory_is_told_as_what_it_is(tmp_path: Path):
    fits = {"settings": {"preset": "sd15", "memory_gb": 24}, "fits": {"elr": {"plain": 8}}}
    with pytest.raises(DistilleryError, match=r"a\.json: of profile --memory-gb, .*; move it"):
        settings_of(tmp_path, fits)


@pytest.mark.parametrize(
    ("dtype", "apart"),
    [("float16", "-fp16"), ("bfloat16", "-bf16"), ("float32", ""), ("fp16", "-fp16"),
     ("float32, but where a row says otherwise", "")],
)  # fmt: skip
def test_older_words_for_number_formats_are_read(tmp_path: Path, dtype: str, apart: str):
    found = settings_of(tmp_path, with_value("settings.dtype", dtype))
    assert [setting for setting in found if "analytic" not in setting] == [
        f"sd15-cuda{apart}",
        f"sd15-cuda-batch8{apart}",
    ]
