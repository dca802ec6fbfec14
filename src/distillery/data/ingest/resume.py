"""Which raw shards an interrupted `ingest` has finished, so that the next one takes them over.

In: the run and what it reads. Out: `ShardResume`, which takes, keeps and drops the three files of a
shard. The contents of `ingest.path` are not in the fingerprint, so shards count only while its
files are the same (names, sizes and times), and until a run completes: one that is forced after
that starts afresh.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from distillery.core.artifacts import hash_json
from distillery.core.run import FINISHED, Run, read_run
from distillery.data.ingest.sample import walk_files

_KEY_CHARS = 16


class ShardResume:
    """The finished shards of one run. Of a tar that `is_good` refuses, nothing is kept.

    `lists` are further files that say which rows a shard holds.
    """

    def __init__(
        self,
        run: Run,
        source: Path | None = None,
        is_good: Callable[[Path], bool] = lambda tar: True,
        lists: Iterable[Path] = (),
    ) -> None:
        self._run, self._is_good = run, is_good
        last = read_run(run.work_root, run.label) or {}
        completed = last if last.get("fingerprint") == run.fingerprint else {}
        self._folder = hash_json([_listing(source), completed, *map(_listing, lists)])[:_KEY_CHARS]
        _delete_others(run.work / FINISHED, self._folder)

    def take(self, tar: Path) -> bool:
        """Put the shard's files at their places if all of them were finished and are undamaged."""
        files = shard_files(tar)
        if all(self._run.reuse(file, self._name(file)) for file in files):
            return True
        for file in files:  # a link: writing to it would write to what is kept
            file.unlink(missing_ok=True)
        return False

    def keep(self, tar: Path) -> None:
        """Record a shard whose three files are complete."""
        if self._is_good(tar):
            for file in shard_files(tar):
                self._run.finish(file, self._name(file))

    def drop(self, tar: Path) -> None:
        """Forget a shard, so that the next run makes it again."""
        for file in shard_files(tar):
            (self._run.work / FINISHED / self._name(file)).unlink(missing_ok=True)

    def _name(self, file: Path) -> str:
        return f"{self._folder}/{file.name}"


def shard_files(tar: Path) -> tuple[Path, Path, Path]:
    """The tar, parquet and stats file of one shard."""
    return tar, tar.with_suffix(".parquet"), stats_file(tar)


def stats_file(tar: Path) -> Path:
    """The stats file beside a tar."""
    return tar.with_name(f"{tar.stem}_stats.json")


def _listing(source: Path | None) -> str:
    """A hash of name, size and time of every file at or below `source`."""
    digest = hashlib.sha256()
    if source is not None and source.exists():
        for file in [source] if source.is_file() else walk_files(source):
            with contextlib.suppress(OSError):  # a link to nothing
                stat = file.stat()
                what = f"{file.relative_to(source)}\0{stat.st_size}\0{stat.st_mtime_ns}\n"
                digest.update(what.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _delete_others(finished: Path, folder: str) -> None:
    """Free the room of shards that nothing will take any more."""
    for other in finished.iterdir() if finished.is_dir() else []:
        if other.name != folder:
            shutil.rmtree(other)
