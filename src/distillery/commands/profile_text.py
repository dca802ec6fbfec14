"""What `distillery profile` prints.

In: the dict of `profile`. Out: tables of time and memory, of parameters, of evaluations; ratios;
what was not run, and why.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from distillery.cost.counts import COLUMNS

_BYTES = ("weights", "gradients", "optimiser", "teacher", "activations", "peak")
_EVALUATED = (
    "batch", "runtime", "s/image", "from", "to", "allocated", "reserved", "predicted", "MACs",
    "image",
)  # fmt: skip


def as_text(record: Mapping[str, Any]) -> str:
    """Training rows, inference rows, ratios, and the reasons of what was not run."""
    settings = record["settings"]
    if "fits" in record:
        return "\n".join(_fits(record))
    training = {n: row for n, row in record["rows"].items() if "batches" not in row}
    inference = {n: row for n, row in record["rows"].items() if "batches" in row}
    about = (
        f"{settings['preset']} at {settings['resolution_px']} px, {record['device']}, "
        f"{settings['dtype']}, quickest of {', '.join(settings['runtimes'])}"
    )
    lines: list[str] = []
    if training:
        recomputed = ", checkpointing" if settings.get("checkpointing") else ""
        lines += _training(training, f"{about}, batch size {settings['batch_size']}{recomputed}")
    if inference:
        lines += _inference(inference, f"{about}, {settings['clock']}")
    for name, values in record["ratios"].items():
        lines.append(f"{name}: " + ", ".join(f"{k} {_ratio(v)}" for k, v in values.items()))
    return "\n".join([*lines, *_notes(record["rows"])])


def _fits(record: Mapping[str, Any]) -> Iterator[str]:
    """What of a step fits, row by row, and the keys of `training` that make it fit."""
    settings = record["settings"]
    width = max((len(name) for name in record["fits"]), default=0) + 2
    yield (
        f"{settings['preset']} at {settings['resolution_px']} px, {settings['dtype']}: samples at "
        f"once in {settings['memory_gb']:g} GB, and what to set for steps of "
        f"{settings['batch_size']}; predicted, activations kept (plain) or recomputed "
        "(checkpointing), 0 does not fit, - not needed"
    )
    yield f"{'row':<{width}}{'plain':>7}{'checkpointing':>15}  keys of training"
    for name, row in record["fits"].items():
        plain, recomputed = (
            "-" if row[form] is None else row[form] for form in ("plain", "checkpointing")
        )
        keys = row["settings"] or {}
        said = ", ".join(f"{k}: {str(v).lower()}" for k, v in keys.items()) or "does not fit"
        yield f"{name:<{width}}{plain:>7}{recomputed:>15}  {said}"


def _training(rows: Mapping[str, Any], about: str) -> Iterator[str]:
    width = max(len(name) for name in rows) + 2
    yield f"{about}; memory in GB, predicted at the peak"
    yield (
        f"{'row':<{width}}{'runtime':>9}{'s/it':>9}{'allocated':>11}{'reserved':>10}"
        + "".join(f"{name:>12}" for name in _BYTES)
        + f"{'paper':>8}"
    )
    yield from (_cost_line(name, row, width) for name, row in rows.items())
    yield ""
    yield f"{'row':<{width}}" + "".join(f"{c:>15}" for c in (*COLUMNS, "on disk"))
    yield from (_size_line(name, row, width) for name, row in rows.items())
    yield ""


def _inference(rows: Mapping[str, Any], about: str) -> Iterator[str]:
    """A line per row and batch size."""
    width = max(len(name) for name in rows) + 2
    yield (
        f"{about}; one evaluation without gradients, memory in GB, MACs in G per image at the "
        "model's own size, seconds of an image of 50 steps"
    )
    yield f"{'row':<{width}}{'parameters':>13}" + "".join(f"{name:>10}" for name in _EVALUATED)
    for name, row in rows.items():
        start = f"{name:<{width}}{row['parameters']['total'] / 1e6:>12.2f}M"
        for batch, entry in row["batches"].items():
            yield start + "".join(f"{cell:>10}" for cell in _cells(row, batch, entry))
    yield ""


def _cells(row: Mapping[str, Any], batch: str, entry: Mapping[str, Any]) -> list[str]:
    ends = [end / int(batch) for end in entry.get("seconds_range", ())] or [None, None]
    return [
        batch,
        entry.get("runtime", "-"),
        *(_seconds(value) for value in (entry.get("seconds_per_image"), *ends)),
        *(_gigabytes(entry.get(f"peak_{kind}_bytes")) for kind in ("allocated", "reserved")),
        _gigabytes(entry["predicted_bytes"]["peak"]),
        f"{row['macs'] / 1e9:.1f}",
        _seconds(entry.get("image", {}).get("seconds_per_image")),
    ]


def _notes(rows: Mapping[str, Any]) -> Iterator[str]:
    for name, row in rows.items():
        if "reason" in row:
            yield f"{name}: {row['status']}: {row['reason']}"
        for batch, entry in row.get("batches", {}).items():
            if "reason" in entry:
                yield f"{name}, batch {batch}: {entry['status']}: {entry['reason']}"


def _cost_line(name: str, row: Mapping[str, Any], width: int) -> str:
    peaks = [_gigabytes(row.get(f"peak_{kind}_bytes")) for kind in ("allocated", "reserved")]
    parts = "".join(f"{_gigabytes(row['predicted_bytes'][kind]):>12}" for kind in _BYTES)
    paper, shown = row["paper"].get("memory_gb", "-"), _seconds(row.get("seconds_per_iteration"))
    start = f"{name:<{width}}{row.get('runtime', '-'):>9}{shown:>9}"
    return f"{start}{peaks[0]:>11}{peaks[1]:>10}{parts}{paper:>8}"


def _size_line(name: str, row: Mapping[str, Any], width: int) -> str:
    counts = row["parameters"]
    numbers = "".join(f"{counts[column] / 1e6:>14.2f}M" for column in COLUMNS)
    return f"{name:<{width}}{numbers}{counts['bytes_on_disk'] / 1e6:>12.1f} MB"


def _ratio(value: Any) -> str:
    return f"{value[0]:.3f} to {value[1]:.3f}" if isinstance(value, list) else f"{value:.3f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _gigabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"
