"""Bits that flip and files that are cut short, in all that stages read.

In: a finished small project. Out: a result. Each file is read as a stage reads it, and the damage
must be an error of the project, not a traceback and not silence; then the file is put back. In
tables a bit may change nothing that is read (statistics, say): the rows must then be equal.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torture.result import Result
from torture.small_project import SmallProject

Read = Callable[[], object]


def damage_files(project: SmallProject, seed: int, seconds: float) -> Result:
    """Flips and cuts, in a fork: the project's code is imported there."""
    answer = project.root.parent / "flips.json"
    answer.unlink(missing_ok=True)
    if (child := os.fork()) == 0:
        code = 1
        try:
            answer.write_text(json.dumps(_damage(project.root, seed, seconds)))
            code = 0
        finally:
            os._exit(code)
    result = Result("bit flips and truncations")
    if project.wait(child) or not answer.exists():
        result.lost.append("the reader itself ended")
        return result
    given = json.loads(answer.read_text())
    result.tried, result.lost = given["tried"], given["lost"]
    result.note = ", ".join(f"{kind} {num}" for kind, num in given["kinds"].items())
    return result


def _damage(root: Path, seed: int, seconds: float) -> dict:
    from distillery.core.errors import DistilleryError

    rng, end = random.Random(seed), time.monotonic() + seconds
    tried, lost, kinds = 0, [], {}
    readers = {kind: list(found) for kind, found in _readers(root).items()}
    for change in _boundaries(root):
        tried += 1
        kinds["member boundaries"] = kinds.get("member boundaries", 0) + 1
        lost += _silent(change, DistilleryError, "cut tar")
    while time.monotonic() < end:
        for kind, found in readers.items():
            file, read = rng.choice(found)
            good, rows = file.read_bytes(), read()
            file.write_bytes(_change(good, rng))
            lost += _silent(read, DistilleryError, str(file.relative_to(root)), rows)
            file.write_bytes(good)
            tried += 1
            kinds[kind] = kinds.get(kind, 0) + 1
    return {"tried": tried, "lost": lost, "kinds": kinds}


def _change(data: bytes, rng: random.Random) -> bytes:
    """One flipped bit, or now and then a shorter file."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data))]
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _silent(read: Read, kind: type, name: str, rows: object = None) -> list[str]:
    try:
        if isinstance(found := read(), list) and found == rows:
            return []
    except kind:
        return []
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {error}"[:300]]
    return [f"{name}: read without a word"]


def _readers(root: Path) -> dict[str, Iterator[tuple[Path, Read]]]:
    return {
        "models": _models(root / "models"),
        "checkpoints": _checkpoints(root / "work"),
        "raw": _raw(root / "data/raw"),
        "tables": _tables(root / "data"),
        "caches": _caches(root / "data/teacher_cache"),
        "manifests": _manifests(root),
    }


def _models(models: Path) -> Iterator[tuple[Path, Read]]:
    """Weights, by the loader of their class, and the configs beside them."""
    import torch
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTextModel

    from distillery.core.weights import require_recorded
    from distillery.models.load import load_controlnet, load_unet
    from distillery.teacher.load import load_module

    parts = {"text_encoder": CLIPTextModel, "vae": AutoencoderKL, "clip": CLIPModel}
    for file in models.rglob("*.safetensors"):
        folder, config = file.parent, file.parent / "config.json"
        named = json.loads(config.read_text()).get("_class_name", "") if config.exists() else ""
        if folder.name in parts:
            kind = parts[folder.name]
            load = _call(load_module, kind, folder.parent, folder.name, "cpu", torch.float32)
        elif not named:  # a LoRA: its loader begins with this
            load = _call(require_recorded, file)
        else:
            load = _call(load_unet if "UNet" in named else load_controlnet, folder)
        yield file, load
        if config.exists():
            yield config, load


def _checkpoints(work: Path) -> Iterator[tuple[Path, Read]]:
    from distillery.train.state import require_undamaged

    for file in work.rglob("step-*/*"):
        yield file, _call(require_undamaged, file.parent)


def _raw(raw: Path) -> Iterator[tuple[Path, Read]]:
    from distillery.data.curation.curate import require_undamaged
    from distillery.data.ingest.resume import shard_files

    for tar in raw.glob("*.tar"):
        for file in shard_files(tar):
            yield file, _call(require_undamaged, tar)


def _tables(data: Path) -> Iterator[tuple[Path, Read]]:
    from distillery.core.shards import iter_table_shard

    folders = [data / name for name in ("curated", "conditions", "selection")]
    for file in (file for folder in folders for file in folder.rglob("*.parquet")):
        yield file, lambda file=file: list(iter_table_shard(file))


def _caches(cache: Path) -> Iterator[tuple[Path, Read]]:
    from distillery.core.shards import read_tensor_shard

    for file in cache.rglob("*.safetensors"):
        yield file, _call(read_tensor_shard, file)


def _manifests(root: Path) -> Iterator[tuple[Path, Read]]:
    from distillery.core.artifacts import read_manifest

    for name in ("data", "models"):
        for file in (root / name).rglob("manifest.json"):
            yield file, _call(read_manifest, file.parent)


def _call(function: Callable, *arguments: object) -> Read:
    return lambda: function(*arguments)


def _boundaries(root: Path) -> Iterator[Read]:
    """A user's own tar, cut at the end of each member and in the middle of it."""
    import tarfile

    from distillery.data.ingest.readers.tar import read_shard

    original = next((root / "data/raw").glob("*.tar"))
    with tarfile.open(original) as tar:
        places = [member.offset for member in tar] + [member.offset_data + 1 for member in tar]
    folder = root.parent / "own"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for place in places:
        cut = folder / "own.tar"
        cut.write_bytes(original.read_bytes()[:place])
        yield lambda cut=cut: list(read_shard(cut))
