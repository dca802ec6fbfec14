"""Params, folders of images and the chain of data stages, for the tests of this folder."""

import copy
import functools
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

from distillery.params import Params
from distillery.stages.curate import curate
from distillery.stages.deduplicate import deduplicate
from distillery.stages.extract_conditions import extract_conditions
from distillery.stages.ingest import ingest

ROOT = Path(__file__).parents[2]


def make_params(work: Path, changes: dict[str, Any]) -> Params:
    """The default params with some dotted keys replaced; resume state goes to `work`."""
    values = copy.deepcopy(_shipped())
    for dotted, value in {"paths.work": str(work), **changes}.items():
        *sections, name = dotted.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[name] = value
    return Params.model_validate(values)


@functools.cache
def _shipped() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def change(params: Params, dotted: str, value: Any) -> Params:
    """A copy with one key of a section replaced: `change(params, "curate.max_aspect", 3.0)`."""
    section, name = dotted.split(".")
    changed = getattr(params, section).model_copy(update={name: value})
    return params.model_copy(update={section: changed})


def write_folder(folder: Path, samples: dict[str, tuple[bytes, str | None]]) -> Path:
    """Images with .txt sidecars: {"a.png": (bytes, caption or None)}."""
    folder.mkdir(parents=True)
    for file_name, (data, caption) in samples.items():
        (folder / file_name).write_bytes(data)
        if caption is not None:
            (folder / file_name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    return folder


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """Baseline JPEG with halved chroma."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[:, :, ::-1], settings)[1].tobytes()


def run_to_selection(params: Params, root: Path) -> Path:
    """ingest, curate every part, deduplicate below `root`; returns `root`."""
    ingest(params, raw=root / "raw")
    for part in params.data.parts:
        curate(params, part=part, raw=root / "raw", curated=root / "curated" / str(part))
    deduplicate(params, curated=root / "curated", selection=root / "selection")
    return root


def run_conditions(params: Params, root: Path) -> None:
    for part in params.data.parts:
        extract_conditions(
            params,
            part=part,
            curated=root / "curated" / str(part),
            selection=root / "selection",
            conditions=root / "conditions" / str(part),
        )
