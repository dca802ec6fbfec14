"""Writers and readers of one cache at once.

In: a folder and a time. Out: a result. Writers publish equal bytes, as runs of one recipe do; no
publish may fail, and no read may miss the folder or see another than whole bytes.
"""

import time
from collections.abc import Callable
from pathlib import Path

from torture.processes import in_forks
from torture.result import Result
from torture.small_project import SmallProject

NUM_EACH = 4


def crowd(project: SmallProject, seconds: float) -> Result:
    """Four writers and four readers, each a process."""
    folder = project.root.parent / "crowd"
    shard = next((project.root / "data/teacher_cache/base").rglob("0*.safetensors")).read_bytes()
    _publish(folder, shard)
    given = in_forks(*[lambda w=w: w(folder, shard, seconds) for w in NUM_EACH * [_write, _read]])
    result = Result("four writers, four readers", note=f"{seconds:.0f} s")
    for kind, num_tried, lost in given:
        result.tried += num_tried
        result.kinds[kind] += num_tried
        result.lost += lost
    return result


def _publish(folder: Path, shard: bytes) -> None:
    from distillery.core.artifacts import write_manifest
    from distillery.core.publishing import publish

    with publish(folder) as partial:
        partial.mkdir()
        (partial / "00000.safetensors").write_bytes(shard)
        write_manifest(partial, "cache_teacher/base/0", {}, {})


def _write(folder: Path, shard: bytes, seconds: float) -> tuple[str, int, list[str]]:
    return "publishes", *_repeat(lambda: _publish(folder, shard), seconds)


def _read(folder: Path, shard: bytes, seconds: float) -> tuple[str, int, list[str]]:
    from distillery.core.artifacts import read_manifest
    from distillery.core.shards import read_tensor_shard

    def read() -> None:
        read_manifest(folder)
        read_tensor_shard(folder / "00000.safetensors")

    return "reads", *_repeat(read, seconds)


def _repeat(act: Callable[[], object], seconds: float) -> tuple[int, list[str]]:
    end, num_tried, lost = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        num_tried += 1
        try:
            act()
        except Exception as error:
            lost.append(f"{type(error).__name__}: {error}"[:200])
    return num_tried, lost
