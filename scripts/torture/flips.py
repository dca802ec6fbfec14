"""Bits that flip and files that are cut short, in all that stages read.

In: a finished small project. Out: a result. Each file is read as a stage reads it, and the damage
must be an error of the project, not a traceback and not silence; then the file is put back. In
tables and manifests a bit may change nothing that is read (statistics, the e of 1e-5): what is read
must then be equal.
"""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torture.processes import in_forks
from torture.result import Result, joined
from torture.small_project import SmallProject

Read = Callable[[], object]


def damage_files(projects: Sequence[SmallProject], seed: int, seconds: float) -> Result:
    """Flips and cuts, in each copy of the project by a fork of its own."""
    acts = [
        lambda p=p, n=n: _damage(p.root, f"{seed}/{n}", seconds) for n, p in enumerate(projects)
    ]
    return joined(in_forks(*acts))


def _damage(root: Path, seed: str, seconds: float) -> Result:
    from distillery.core.errors import DistilleryError

    rng, end = random.Random(seed), time.monotonic() + seconds
    result = Result("bit flips and truncations")
    readers = {kind: list(found) for kind, found in _readers(root).items()}
    for change in _boundaries(root):
        result.add(_silent(change, DistilleryError, "cut tar"), "member boundaries")
    while time.monotonic() < end:
        for kind, found in readers.items():
            file, read = rng.choice(found)
            good, rows = file.read_bytes(), read()
            file.write_bytes(_change(good, rng))
            name = str(file.relative_to(root))
            result.add(_silent(read, DistilleryError, name, rows), kind)
            file.write_bytes(good)
    return result


def _change(data: bytes, rng: random.Random) -> bytes:
    """One flipped bit, or now and then a file that is cut, by more than its last line break."""
    if rng.random() < 0.2:
        return data[: rng.randrange(len(data.rstrip()) or 1)]
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _silent(read: Read, kind: type, name: str, rows: object = None) -> str | None:
    try:
        if isinstance(found := read(), list | dict) and found == rows:
            return None
    except kind:
        return None
    except Exception as error:
        return f"{name}: {type(error).__name__}: {error}"[:300]
    return f"{name}: read without a word"


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
    folder = root / "work/cut"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for place in places:
        cut = folder / "own.tar"
        cut.write_bytes(original.read_bytes()[:place])
        yield lambda cut=cut: list(read_shard(cut))
