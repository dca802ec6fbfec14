"""Sources read by the command lines of `ingest` and `curate`, as a user types them."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from data_helpers import encode, make_params
from PIL import Image

from distillery.core.shards import read_table
from distillery.stages.curate import curate
from distillery.stages.ingest import ingest
from one_line import run_command

COLOURS = ("red", "green", "blue", "orange", "violet", "brown")
CAPTIONS = [f"a {colour} kite on a wooden table" for colour in COLOURS]


@dataclass(frozen=True)
class Curated:
    """What came out; `error` is what an ended command printed, empty where none ended."""

    error: str = ""
    kept: tuple[dict[str, Any], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    num_input: int = 0

    @property
    def captions(self) -> list[str]:
        return [row["caption"] for row in self.kept]


def picture(index: int, kind: str = "JPEG") -> bytes:
    """A small picture unlike the others."""
    pixels = np.random.default_rng(index).integers(0, 256, (6, 6, 3), np.uint8)
    return encode(Image.fromarray(pixels).resize((64, 64)), kind)


PICTURES = [picture(index) for index in range(6)]


def write_params(work: Path, changes: dict[str, Any]) -> Path:
    """A params file for the data stages: one part, no filter on scores."""
    params = make_params(work, {"data.parts": [0], **changes})
    path = work.with_suffix(".yaml")
    path.write_text(yaml.dump(params.model_dump(mode="json"), Dumper=yaml.CSafeDumper))
    return path


def run_source(root: Path, capsys, source: str, path: Path, **changes: Any) -> Curated:
    """Run `ingest` and `curate` on a source; the first that ends with an error ends this."""
    settings = {"ingest.source": source, "ingest.path": str(path), **changes}
    root.mkdir(exist_ok=True)
    params = write_params(root / "work", settings)
    raw, curated = root / "raw", root / "curated"
    for stage, arguments in (
        (ingest, ["--raw", raw]),
        (curate, ["--part", 0, "--raw", raw, "--curated", curated]),
    ):
        if error := run_command(stage, ["--params", params, *arguments], capsys):
            return Curated(error)
    return read_curated(curated)


def run_ingest(root: Path, capsys, source: str, path: Path, **changes: Any) -> Curated:
    """Run `ingest` alone, for what needs no picture to be decoded; `kept` are raw rows."""
    settings = {"ingest.source": source, "ingest.path": str(path), **changes}
    params = write_params(root / "work", settings)
    error = run_command(ingest, ["--params", params, "--raw", root / "raw"], capsys)
    if error:
        return Curated(error)
    rows = [row for shard in sorted((root / "raw").glob("0*.parquet")) for row in read_rows(shard)]
    good = tuple(row for row in rows if row["status"] == "success")
    refused = tuple(("status", row["status"]) for row in rows if row not in good)
    return Curated("", good, refused, len(rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def read_curated(curated: Path) -> Curated:
    kept = tuple(read_table(curated)) if list(curated.glob("0*.parquet")) else ()
    refused = tuple((r["reason"], r["detail"]) for r in read_table(curated / "rejected"))
    counts = json.loads((curated / "counts.json").read_text())
    num_refused = sum(counts["rejected"].values()) + sum(counts["failed"].values())
    assert counts["input"] == counts["kept"] + num_refused
    return Curated("", kept, refused, counts["input"])


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Of a tar's member, whatever it claims."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """A plain tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Files at any depth of a new folder."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
