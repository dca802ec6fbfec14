"""Whether the teacher's own CLIP model sees shapes well enough for its scores to decide anything.

In: a CLIP model's folder with the record of its linear probe; the settings of a metric. Out: the
probe's accuracy; why a metric decides nothing. Torch is not imported. Not here: the probe itself
(`scenes_teacher.probe`). Networks that a user names are not asked: nobody tuned them to scenes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.core.artifacts import hash_file, read_json, write_json

TEACHER_CLIP = "teacher_clip"
RECORD = "shape_probe.json"
MIN_ACCURACY = 0.9
_HOW = "python -m distillery.scenes_teacher.probe TEACHER measures and records it"


def record_accuracy(clip: Path, accuracy: float, num_test: int) -> None:
    """Write the record into the CLIP model's folder, bound to its weights."""
    record = {"accuracy": round(accuracy, 6), "num_test": num_test, "weights": _weights(clip)}
    write_json(clip / RECORD, record)


def read_accuracy(clip: Path) -> float | None:
    """The recorded accuracy in [0, 1]; None where there is none for the weights in this folder."""
    if not (clip / RECORD).is_file():
        return None
    record = read_json(clip / RECORD, remedy=_HOW)
    return record["accuracy"] if record["weights"] == _weights(clip) else None


def _weights(clip: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(clip.glob("*.safetensors"))}


def why_shut(settings: Mapping[str, Any]) -> str | None:
    """Why a metric with these settings decides nothing; None where it may."""
    if settings.get("extractor") != TEACHER_CLIP:
        return None
    accuracy = settings.get("shape_probe")
    if accuracy is None:
        return f"no linear probe for shapes is recorded for the teacher's CLIP model; {_HOW}"
    if accuracy < MIN_ACCURACY:
        return (
            f"a linear probe finds {accuracy:.3f} of the shapes in the features of the teacher's "
            f"CLIP model; its scores decide from {MIN_ACCURACY:g}"
        )
    return None


def describe(settings: Mapping[str, Any]) -> str:
    """The probe's value in words, to stand beside scores of the teacher's CLIP; "" for others."""
    if settings.get("extractor") != TEACHER_CLIP:
        return ""
    accuracy = settings.get("shape_probe")
    value = "not recorded" if accuracy is None else f"{accuracy:.3f}"
    return f"linear probe for shapes {value}, {MIN_ACCURACY:g} needed to decide"
