"""`distillery params`: how large every model is, before anything is trained or downloaded.

In: `sd15`, `sd21`, `scenes` (the shipped teacher), or a params file. Out: a table or JSON. With a
params file also the students that it describes, with their multiply-accumulates.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distillery.core.errors import DistilleryError
from distillery.cost.counts import COLUMNS


def count(preset: str, teacher: Path | None = None) -> dict[str, Any]:
    """{"preset", "models": [...], "students": [...]} of an architecture or a params file.

    `teacher`: a diffusers folder, for a params file whose teacher is not on this machine, and for
    rank rules that look at weights. Raises DistilleryError for a preset that is nothing of these.
    """
    from distillery.cost import accounting

    if not is_params_file(preset):
        parts = accounting.load_architecture(preset)
        return _listing(preset, accounting.paper_entries(preset, parts), [])
    from distillery.families import TRAINED
    from distillery.families.sizes import student_choice, student_sizes
    from distillery.params.presets import load_preset

    params = load_preset(Path(preset))
    folder = teacher or teacher_folder(params)
    parts = accounting.load_architecture(str(folder or architecture_of(params)))
    entries = accounting.paper_entries(str(folder or architecture_of(params)), parts)
    sections = {f.stage: getattr(params, f.stage).model_dump() for f in TRAINED.values()}
    rule, init = params.init_student.rank.model_dump(), Path(params.paths.init)
    choice = student_choice(rule, parts, folder, init)
    students = student_sizes(sections, parts, *choice, init)
    listed = {student.entry.name for student in students}
    names = [f"{f.name}/{v}" for f in TRAINED.values() for v in sections[f.stage]["variants"]]
    return {
        **_listing(preset, entries, students),
        "unplanned": [name for name in names if name not in listed],
    }


def is_params_file(preset: str) -> bool:
    """Whether `--preset` names a YAML file."""
    return preset.endswith((".yaml", ".yml"))


def teacher_folder(params: Any) -> Path | None:
    """The teacher that a params file names, where it is on this machine."""
    source = params.prepare_teacher.source
    folder = Path(params.paths.scenes_teacher if source == "scenes" else source)
    known = [folder, Path(params.paths.teacher)]
    return next((path for path in known if (path / "unet" / "config.json").is_file()), None)


def architecture_of(params: Any) -> str:
    """`sd15` or `sd21`, by the name of a hub id; raises DistilleryError where that says nothing."""
    name = params.prepare_teacher.source.lower()
    for architecture, words in (("sd15", ("v1-", "1-5", "1.5")), ("sd21", ("-2", "turbo"))):
        if any(word in name for word in words):
            return architecture
    raise DistilleryError(
        f"prepare_teacher.source: the architecture of {params.prepare_teacher.source} is not known "
        "here; give --teacher FOLDER"
    )


def _listing(preset: str, entries: Sequence[Any], students: Sequence[Any]) -> dict[str, Any]:
    return {
        "preset": preset,
        "models": [asdict(entry) for entry in entries],
        "students": [{**asdict(s.entry), "macs": s.macs} for s in students],
    }


def as_json(listing: dict[str, Any]) -> str:
    """The same, as text."""
    return json.dumps(listing, indent=1)


def as_text(listing: dict[str, Any]) -> str:
    """Tables for the terminal: the papers' models, notes on them, then the params' students."""
    head = ["model", "of", "paper", *(c.replace("_", " ") for c in COLUMNS), "on disk", "scope"]
    rows = [_row(model, model["printed"] or "-") for model in listing["models"]]
    lines = _aligned([head, *rows])
    noted = [m for m in listing["models"] if m["note"]]
    lines += ["", *(f"{m['name']}: {m['note']}" for m in noted)]
    if listing["students"]:
        head[1:3] = ["from", "GMAC"]
        rows = [_row(s, f"{s['macs'] / 1e9:.3f}") for s in listing["students"]]
        lines += ["", *_aligned([head, *rows])]
        lines += ["GMAC: of one evaluation for one image; a LoRA counts as fused"]
    if unplanned := listing.get("unplanned"):
        lines += [f"known once init_student has planned them: {', '.join(unplanned)}"]
    return "\n".join(lines)


def _row(model: dict[str, Any], second: str) -> list[str]:
    counts = model["counts"]
    numbers = [_short(counts[column]) for column in COLUMNS]
    on_disk = f"{counts['bytes_on_disk'] / 1e6:.1f} MB"
    return [model["name"], model["architecture"], second, *numbers, on_disk, model["scope"]]


def _short(number: int) -> str:
    return f"{number / 1e6:.2f}M" if number else "-"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as needed; the first and the last to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
