"""Full-size rows of one run against each other: seconds, memory, operations; and whole images.

In: rows as `training_run` and `inference_run` give them. Out: ratios by `<model>/<other>`, the
model's share of the other; seconds of an image of 50 steps, put together from measured parts. Only
rows of one run are compared.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from distillery.cost.full_size.inference import DECODER, INFERENCE_ROWS, PREFIX, TEXT

NUM_STEPS = 50  # what the guidance paper states its inference time at
Rows = Mapping[str, Mapping[str, Any]]
_TRAINING = (
    ("elr", "uni_controlnet"),
    ("elr_aligned", "uni_controlnet"),
    ("elr_dense", "uni_controlnet"),
    ("lora_distill", "full_distill"),
    ("lora_distill_lean", "full_distill"),
    ("unet_low_rank_cached", "unet_dense_online"),
)
_GUIDED = ("teacher_batched", "teacher_two_calls")
_CONTROLNETS = [n for n in INFERENCE_ROWS if n.startswith(f"{PREFIX}controlnet/")]
_DENSE, *_OTHER_UNETS = [n for n in INFERENCE_ROWS if n.startswith(f"{PREFIX}unet/")]
_INFERENCE = (
    *((name, _DENSE) for name in _OTHER_UNETS),
    *((f"{PREFIX}guidance/lora_distill", f"{PREFIX}guidance/{name}") for name in _GUIDED),
    *((name, _CONTROLNETS[0]) for name in _CONTROLNETS[1:]),
    *((f"{PREFIX}whole/student", f"{PREFIX}whole/{n}") for n in ("teacher", "teacher_two_calls")),
)


def ratios(rows: Rows) -> dict[str, dict[str, Any]]:
    """Of every pair that is there, what both rows have."""
    by_pair = {}
    for name, other in _TRAINING:
        if name in rows and other in rows:
            by_pair[f"{name}/{other}"] = _training(rows[name], rows[other])
    for name, other in _INFERENCE:
        if name in rows and other in rows:
            short = other.rpartition("/")[2]
            by_pair[f"{name}/{short}"] = _inference(rows[name], rows[other])
    return by_pair


def _training(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    peaks = [row["predicted_bytes"]["peak"] for row in (mine, other)]
    values = {"predicted_peak": _over(*peaks)}
    keys = ("seconds_per_iteration", "cpu_seconds_per_iteration", "peak_allocated_bytes")
    for key in keys:
        if mine.get(key) and other.get(key):
            values[key] = _over(mine[key], other[key])
    return values


def _inference(mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds are the median of the rounds' ratios, with the least and the greatest."""
    values: dict[str, Any] = {
        "parameters": _over(mine["parameters"]["total"], other["parameters"]["total"]),
        "macs": _over(mine["macs"], other["macs"]),
    }
    for batch in mine["batches"]:
        a, b = mine["batches"][batch], other["batches"].get(batch)
        if b is None:
            continue
        end = f"_batch{batch}"
        peaks = [entry["predicted_bytes"]["peak"] for entry in (a, b)]
        values[f"predicted_peak{end}"] = _over(*peaks)
        if "samples_s" in a and "samples_s" in b:
            values |= _of_rounds(f"seconds{end}", a["samples_s"], b["samples_s"])
        if "image" in a and "image" in b:
            seconds = [entry["image"]["seconds_per_image"] for entry in (a, b)]
            values[f"image_seconds{end}"] = _over(*seconds)
        if a.get("peak_allocated_bytes") and b.get("peak_allocated_bytes"):
            values[f"peak_allocated_bytes{end}"] = _over(
                a["peak_allocated_bytes"], b["peak_allocated_bytes"]
            )
    return values


def _of_rounds(key: str, mine: Sequence[float], other: Sequence[float]) -> dict[str, Any]:
    shares = [_over(a, b) for a, b in zip(mine, other, strict=True)]
    return {key: _rounded(statistics.median(shares)), f"{key}_range": [min(shares), max(shares)]}


def add_images(rows: Mapping[str, dict[str, Any]]) -> None:
    """Put `image` into each batch of the rows whose steps, text encoding and decoding are known."""
    for name, row in rows.items():
        if name not in INFERENCE_ROWS or not (num_prompts := INFERENCE_ROWS[name].num_prompts):
            continue
        for batch, entry in row["batches"].items():
            around = [
                rows.get(other, {}).get("batches", {}).get(batch) for other in (TEXT, DECODER)
            ]
            if all(part and "seconds" in part for part in (entry, *around)):
                entry["image"] = _image(entry, *around, num_prompts, int(batch))


def _image(
    step: Mapping[str, Any],
    text: Mapping[str, Any],
    decoder: Mapping[str, Any],
    num_prompts: int,
    batch_size: int,
) -> dict[str, Any]:
    """The range is the sum of the parts' ends, wider than what was seen of their sum."""
    factors = ((NUM_STEPS, step), (num_prompts, text), (1, decoder))
    low, high = (sum(n * part["seconds_range"][end] for n, part in factors) for end in (0, 1))
    seconds = sum(n * part["seconds"] for n, part in factors)
    prompts = "one prompt" if num_prompts == 1 else "prompt and empty prompt"
    return {
        "num_steps": NUM_STEPS,
        "seconds_per_image": _rounded(seconds / batch_size),
        "seconds_range": [_rounded(end / batch_size) for end in (low, high)],
        "how": f"computed: {NUM_STEPS} x this step + text encoder ({prompts}) + VAE decoder, "
        "each measured in this run",
    }


def _over(mine: float, other: float) -> float:
    return _rounded(mine / other)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
