"""Running the evaluations of `full_size_inference`: counted, predicted, then measured in turn.

In: rows by name, an architecture's parts on meta, a device and sizes. Out: one plain dict per row,
with an entry per batch size. Seconds are processor time of all threads on the CPU, where other work
on the machine would count otherwise, and wall time on CUDA; wall time is beside. MACs are of the
architecture's own size whatever is measured. What does not fit the device is not run, and says so.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from distillery.cost.counts import count_parameters
from distillery.cost.full_size.device import (
    MEASURED,
    OUT_OF_MEMORY,
    PREDICTED,
    does_not_fit,
    free_bytes,
    is_out_of_memory,
    materialise,
    peaks,
    release,
    reset_peaks,
)
from distillery.cost.full_size.inference import INFERENCE_ROWS, Evaluation, shared_parts
from distillery.cost.full_size.training_run import latent_side
from distillery.cost.memory_model import predict_evaluation
from distillery.cost.profile import count_run, num_tokens
from distillery.cost.timing import Seconds, latency_job, median_seconds, run_in_turn
from distillery.cost.workload import HINT_SCALE, Workload
from distillery.metrics.intervals import Estimate

META = torch.device("meta")
Parts = Mapping[str, nn.Module]


def profile_group(
    names: Sequence[str],
    parts: Parts,
    device: torch.device,
    *,
    batch_sizes: Sequence[int],
    resolution_px: int,
    num_repeats: int,
    on_step: Callable[[int], object] = lambda count: None,
) -> dict[str, dict[str, Any]]:
    """Rows that are timed in turn; `num_repeats` 0 counts and predicts only.

    Raises DistilleryError if the resolution does not fit the U-Net.
    """
    side = latent_side(parts, resolution_px)

    def work(batch_size: int, device: torch.device) -> Workload:
        tokens = num_tokens(parts["text_encoder"])
        return Workload.of(parts["unet"], batch_size, tokens, side=side, device=device)

    built = _build(names, parts)
    rows = {name: _describe(name, built[name], parts, batch_sizes, work) for name in names}
    if not num_repeats:
        return rows
    if device.type == "cuda":
        for name in names:
            _add_peaks(rows[name], name, parts, device, batch_sizes, work)
    loaded = _load(built, rows, device)
    for batch_size in batch_sizes:
        timed = {n: rows[n]["batches"][str(batch_size)] for n in loaded}
        _time(loaded, timed, work(batch_size, device), num_repeats, on_step)
    del built, loaded
    release(device)
    return rows


def _describe(
    name: str,
    evaluation: Evaluation,
    parts: Parts,
    batch_sizes: Sequence[int],
    work: Callable[..., Workload],
) -> dict[str, Any]:
    """Counts, and what each batch size would need."""
    row, batches = INFERENCE_ROWS[name], {}
    full = Workload.of(parts["unet"], 1, num_tokens(parts["text_encoder"]), device=META)
    for batch_size in batch_sizes:
        run = latency_job(evaluation.run, work(batch_size, META))
        memory = predict_evaluation(run, held=evaluation.parts.values())
        batches[str(batch_size)] = {"status": PREDICTED, "predicted_bytes": memory.as_dict()}
    return {
        "title": row.title,
        "per": row.per,
        "paper": {},
        "parameters": count_parameters(evaluation.parts),
        "macs": count_run(evaluation.run, full),
        "macs_resolution_px": full.sample.shape[-1] * HINT_SCALE,
        "batches": batches,
    }


def _build(names: Sequence[str], parts: Parts) -> dict[str, Evaluation]:
    """Rows on meta, frozen; they share the parts that are the same, and nothing with `parts`."""
    shared = shared_parts(copy.deepcopy(dict(parts)))
    built = {name: INFERENCE_ROWS[name].build(shared) for name in names}
    for part in (part for evaluation in built.values() for part in evaluation.parts.values()):
        part.requires_grad_(False).eval()
    return built


def _add_peaks(
    row: dict[str, Any],
    name: str,
    parts: Parts,
    device: torch.device,
    batch_sizes: Sequence[int],
    work: Callable[..., Workload],
) -> None:
    """Peak memory of a row that is alone on the device."""
    for batch_size in batch_sizes:
        entry, evaluation = row["batches"][str(batch_size)], _build([name], parts)[name]
        if (needed := entry["predicted_bytes"]["peak"]) > (free := free_bytes(device)):
            entry |= does_not_fit(needed, free)
            continue
        try:
            materialise(evaluation.parts.values(), device)
            reset_peaks(device)
            latency_job(evaluation.run, work(batch_size, device))()
            entry |= peaks(device)
        except (MemoryError, RuntimeError) as error:
            entry |= _out_of_memory(error)
        del evaluation


def _load(
    built: Mapping[str, Evaluation], rows: Mapping[str, dict[str, Any]], device: torch.device
) -> dict[str, Evaluation]:
    """The rows whose weights lie on the device together; what they share lies there once."""
    loaded: dict[str, Evaluation] = {}
    for name, evaluation in built.items():
        missing = [p for part in evaluation.parts.values() for p in part.parameters() if p.is_meta]
        needed, free = sum(p.numel() * p.element_size() for p in missing), free_bytes(device)
        if needed > free:
            for entry in rows[name]["batches"].values():
                entry |= does_not_fit(needed, free)
            continue
        materialise(evaluation.parts.values(), device)
        loaded[name] = evaluation
    return loaded


def _time(
    loaded: Mapping[str, Evaluation],
    entries: Mapping[str, dict[str, Any]],
    work: Workload,
    num_repeats: int,
    on_step: Callable[[int], object],
) -> None:
    """Seconds of every row that fits, into its entry."""
    device, jobs = work.sample.device, {}
    for name, evaluation in loaded.items():
        needed, free = entries[name]["predicted_bytes"]["activations"], free_bytes(device)
        if entries[name]["status"] == PREDICTED and needed > free:
            entries[name].update(does_not_fit(needed, free))
        if entries[name]["status"] == PREDICTED:
            job = latency_job(evaluation.run, work)
            jobs[name] = _guarded(job, entries[name])
    for name, seconds in run_in_turn(jobs, num_repeats, on_step).items():
        if entries[name]["status"] == PREDICTED:
            entries[name].update(_measured(seconds, device, len(work.sample)))


def _guarded(job: Callable[[], object], entry: dict[str, Any]) -> Callable[[], None]:
    """The job, until it once runs out of memory: then the row's entry says so."""

    def run() -> None:
        if entry["status"] != PREDICTED:
            return
        try:
            job()
        except (MemoryError, RuntimeError) as error:
            entry.update(_out_of_memory(error))

    return run


def _out_of_memory(error: BaseException) -> dict[str, str]:
    if not is_out_of_memory(error):
        raise error
    return {"status": OUT_OF_MEMORY, "reason": str(error).splitlines()[0]}


def _measured(seconds: Seconds, device: torch.device, batch_size: int) -> dict[str, Any]:
    counted = seconds.wall if device.type == "cuda" else seconds.processor
    median, _ = median_seconds(counted, batch_size)
    wall, _ = median_seconds(seconds.wall, batch_size)
    memory = {} if device.type == "cuda" else peaks(device)
    return {
        "status": MEASURED,
        "seconds": _rounded(median.value),
        "seconds_range": _ends(median),
        "seconds_per_image": _rounded(median.value / batch_size),
        "samples_s": [_rounded(value) for value in counted],
        "wall_seconds": _rounded(wall.value),
        "wall_seconds_range": _ends(wall),
        **memory,
    }


def _ends(estimate: Estimate) -> list[float]:
    return [_rounded(estimate.ci_low), _rounded(estimate.ci_high)]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
