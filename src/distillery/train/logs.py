"""Training logs that survive interruption: a history, a JSONL file and TensorBoard's files.

In: named values at a step. Out: the history, from which the file and the curves are made, so that
after a resume both go on where the checkpoint was. Values are rounded to six digits.
"""

import json
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

History = dict[str, list[dict[str, Any]]]


class Log:
    """Adds to `history[phase]` and mirrors it in `folder`; not on further processes."""

    def __init__(self, folder: Path, history: History, *, enabled: bool) -> None:
        self._history, self._writer, self._file = history, None, None
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        entries = [(phase, entry) for phase in history for entry in history[phase]]
        last_step = max((entry["step"] for _, entry in entries), default=-1)
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=last_step + 1)
        self._file = (folder / "log.jsonl").open("w", encoding="utf-8")
        for phase, entry in sorted(entries, key=lambda item: item[1]["step"]):
            self._write(phase, entry)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._writer.close()

    def add(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Log values of `train` or `val` after `step` updates."""
        entry = {"step": step, **{name: float(f"{v:.6g}") for name, v in values.items()}}
        self._history.setdefault(phase, []).append(entry)
        if self._file is not None:
            self._write(phase, entry)
            for name, value in values.items():
                self._writer.add_scalar(f"{phase}/{name}", value, step)

    def _write(self, phase: str, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps({"phase": phase, **entry}) + "\n")
        self._file.flush()
