"""Running the evaluations of `inference`: counted, predicted, then measured in turn.

In: rows by name, an architecture's parts on meta, a `Setup`. Out: one plain dict per row, with an
entry per batch size: figures of the quickest runtime, and of each under `runtimes`. Seconds are
processor time of all threads on the CPU, where other work on the machine would count otherwise, and
wall time on CUDA; wall time is beside. MACs are of the architecture's own size whatever is
measured. What does not fit the device is not run, and says so.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn

from distillery.core.errors import reason_of
from distillery.core.runtime import Kind
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
from distillery.cost.full_size.runtimes import Job, quickest, ready
from distillery.cost.full_size.setup import Setup
from distillery.cost.full_size.training_run import latent_side
from distillery.cost.memory_model import predict_evaluation
from distillery.cost.profile import count_run, num_tokens
from distillery.cost.timing import Seconds, latency_job, median_seconds, run_in_turn
from distillery.cost.workload import HINT_SCALE, Workload
from distillery.metrics.intervals import Estimate

META = torch.device("meta")
Parts = Mapping[str, nn.Module]


def profile_group(names: Sequence[str], parts: Parts, setup: Setup) -> dict[str, dict[str, Any]]:
    """Rows that are timed in turn, all runtimes of all rows.

    Raises DistilleryError if the resolution does not fit the U-Net.
    """
    side, tokens = latent_side(parts, setup.resolution_px), num_tokens(parts["text_encoder"])
    built = _build(names, parts, setup.torch_dtype)
    inputs = _Inputs(parts, tokens, setup.torch_dtype)
    rows = {name: _describe(name, built[name], parts, setup, inputs, side) for name in names}
    if not setup.num_repeats:
        return rows
    loaded = _load(built, rows, setup.device)
    for batch_size in setup.batch_sizes:
        entries = {n: rows[n]["batches"][str(batch_size)] for n in loaded}
        _time(loaded, entries, inputs.make(batch_size, side, setup.device), setup)
    del built, loaded
    release(setup.device)
    return rows


@dataclass(frozen=True)
class _Inputs:
    """What makes workloads of a pipeline's shapes in a dtype."""

    parts: Parts
    tokens: int
    dtype: torch.dtype

    def make(self, batch_size: int, side: int | None, device: torch.device) -> Workload:
        """Inputs on a device; `side` None: the architecture's own."""
        unet = self.parts["unet"]
        work = Workload.of(unet, batch_size, self.tokens, side=side, device=device)
        return replace(
            work,
            sample=work.sample.to(self.dtype),
            encoder_hidden_states=work.encoder_hidden_states.to(self.dtype),
        )


def _describe(
    name: str, evaluation: Evaluation, parts: Parts, setup: Setup, inputs: _Inputs, side: int
) -> dict[str, Any]:
    """Counts, and what each batch size would need."""
    row = INFERENCE_ROWS[name]

    def peak(batch_size: int) -> dict[str, int]:
        run = latency_job(evaluation.run, inputs.make(batch_size, side, META))
        return predict_evaluation(run, held=evaluation.parts.values()).as_dict()

    def count() -> dict[str, Any]:
        full = inputs.make(1, None, META)
        return {
            "parameters": count_parameters(evaluation.parts),
            "macs": count_run(evaluation.run, full),
            "macs_resolution_px": full.sample.shape[-1] * HINT_SCALE,
        }

    known, about = setup.predictions.get, partial(setup.about, name, parts)
    batches = {
        str(n): {"status": PREDICTED, "predicted_bytes": known(about(batch=n), partial(peak, n))}
        for n in setup.batch_sizes
    }
    counts = known(about(counted=True), count)
    return {"title": row.title, "per": row.per, "paper": {}, **counts, "batches": batches}


def _build(names: Sequence[str], parts: Parts, dtype: torch.dtype) -> dict[str, Evaluation]:
    """Rows on meta, frozen; they share the parts that are the same, and nothing with `parts`."""
    shared = shared_parts(copy.deepcopy(dict(parts)))
    built = {name: INFERENCE_ROWS[name].build(shared) for name in names}
    for part in (part for evaluation in built.values() for part in evaluation.parts.values()):
        nn.Module.to(part.requires_grad_(False).eval(), dtype)  # diffusers' own warns in vain
    return built


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
    setup: Setup,
) -> None:
    """Seconds of every row that fits, in every runtime, into its entry."""
    device = setup.device
    jobs: dict[tuple[str, Kind], Job] = {}
    for name, evaluation in loaded.items():
        entry = entries[name]
        needed, free = entry["predicted_bytes"]["activations"], free_bytes(device)
        if needed > free:
            entry.update(does_not_fit(needed, free))
            continue
        try:
            entry.update(_peaks_alone(evaluation, work, device))
            run = latency_job(evaluation.run, work)
            for kind in setup.runtimes:
                if (job := ready(run, kind, device)) is not None:
                    jobs[name, kind] = job
        except (MemoryError, RuntimeError) as error:
            entry.update(_out_of_memory(error))
            jobs = {key: job for key, job in jobs.items() if key[0] != name}
    taken = run_in_turn(jobs, setup.num_repeats, setup.on_step)
    for name in loaded:
        seconds = {kind: s for (row, kind), s in taken.items() if row == name}
        if seconds:
            entries[name].update(_measured(seconds, device, len(work.sample)))


def _peaks_alone(evaluation: Evaluation, work: Workload, device: torch.device) -> dict[str, Any]:
    """Peak memory as if the row's weights were all that lies on the device."""
    run = latency_job(evaluation.run, work)
    if device.type != "cuda":
        return peaks(device)
    run()  # workspaces of libraries are there from the first call on
    reset_peaks(device)
    others = torch.cuda.memory_allocated(device) - sum(
        t.numel() * t.element_size() for t in _tensors(evaluation)
    )
    run()
    return {name: found - others for name, found in peaks(device).items()}


def _tensors(evaluation: Evaluation) -> list[torch.Tensor]:
    found = {
        id(tensor): tensor
        for part in evaluation.parts.values()
        for tensor in (*part.parameters(), *part.buffers())
    }
    return list(found.values())


def _out_of_memory(error: BaseException) -> dict[str, str]:
    if not is_out_of_memory(error):
        raise error
    return {"status": OUT_OF_MEMORY, "reason": reason_of(error)}


def _measured(
    seconds: Mapping[Kind, Seconds], device: torch.device, batch_size: int
) -> dict[str, Any]:
    """The quickest runtime's figures, and those of each."""
    clock = "wall" if device.type == "cuda" else "processor"
    found = {kind: _figures(taken, clock, batch_size) for kind, taken in seconds.items()}
    best = quickest(seconds, clock)
    return {"status": MEASURED, "runtime": best, **found[best], "runtimes": found}


def _figures(seconds: Seconds, clock: str, batch_size: int) -> dict[str, Any]:
    counted = getattr(seconds, clock)
    median, _ = median_seconds(counted, batch_size)
    wall, _ = median_seconds(seconds.wall, batch_size)
    return {
        "seconds": _rounded(median.value),
        "seconds_range": _ends(median),
        "seconds_per_image": _rounded(median.value / batch_size),
        "samples_s": [_rounded(value) for value in counted],
        "wall_seconds": _rounded(wall.value),
        "wall_seconds_range": _ends(wall),
    }


def _ends(estimate: Estimate) -> list[float]:
    return [_rounded(estimate.ci_low), _rounded(estimate.ci_high)]


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
