"""Writers and readers of one cache at once.

In: a folder and a time. Out: a result. Writers publish equal bytes, as runs of one recipe do; no
publish may fail, and no read may miss the folder or see another than whole bytes.
"""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from torture.result import Result
from torture.small_project import SmallProject

NUM_EACH = 4


def crowd(project: SmallProject, seconds: float) -> Result:
    """Four writers and four readers, each a process."""
    folder, answers = project.root.parent / "crowd", project.root.parent / "answers"
    answers.mkdir(exist_ok=True)
    shard = next((project.root / "data/teacher_cache/base").rglob("0*.safetensors")).read_bytes()
    _in_fork(
        project, lambda: _publish(folder, shard)
    )  # this process imports nothing of the project
    children = []
    for number in range(2 * NUM_EACH):
        if child := os.fork():
            children.append(child)
            continue
        work = _write if number < NUM_EACH else _read
        try:
            answers.joinpath(str(number)).write_text(json.dumps(work(folder, shard, seconds)))
        finally:
            os._exit(0)
    for child in children:
        project.wait(child)
    given = [json.loads((answers / str(n)).read_text()) for n in range(2 * NUM_EACH)]
    written, read = (sum(g["tried"] for g in part) for part in (given[:NUM_EACH], given[NUM_EACH:]))
    result = Result("four writers, four readers", written + read)
    result.lost = [problem for g in given for problem in g["lost"]]
    result.note = f"{seconds:.0f} s: {written} publishes, {read} reads"
    return result


def _in_fork(project: SmallProject, act: Callable[[], object]) -> None:
    if child := os.fork():
        project.wait(child)
        return
    try:
        act()
    finally:
        os._exit(0)


def _publish(folder: Path, shard: bytes) -> None:
    from distillery.core.artifacts import write_manifest
    from distillery.core.publishing import publish

    with publish(folder) as partial:
        partial.mkdir()
        (partial / "00000.safetensors").write_bytes(shard)
        write_manifest(partial, "cache_teacher/base/0", {}, {})


def _write(folder: Path, shard: bytes, seconds: float) -> dict:
    return _repeat(lambda: _publish(folder, shard), seconds)


def _read(folder: Path, shard: bytes, seconds: float) -> dict:
    from distillery.core.artifacts import read_manifest
    from distillery.core.shards import read_tensor_shard

    def read() -> None:
        read_manifest(folder)
        read_tensor_shard(folder / "00000.safetensors")

    return _repeat(read, seconds)


def _repeat(act: Callable[[], object], seconds: float) -> dict:
    end, tried, lost = time.monotonic() + seconds, 0, []
    while time.monotonic() < end:
        tried += 1
        try:
            act()
        except Exception as error:
            lost.append(f"{type(error).__name__}: {error}"[:200])
    return {"tried": tried, "lost": lost}
