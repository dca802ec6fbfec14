"""Opens what Hugging Face `datasets` reads: a local folder or file, or a hub id.

In: where it lies and its split. Out: the data set, streamed where it was not saved as such, and how
many pictures lie beside its rows. No code of a data set is run. Not here: what its columns mean.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from distillery.core.errors import DistilleryError, kind_and_reason
from distillery.data.ingest.readers.folder_tables import is_file_name
from distillery.data.ingest.readers.rows import BUFFER_BYTES

if TYPE_CHECKING:
    import datasets

_BATCH_ROWS = 16
_BUILDERS = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
    ".arrow": "arrow", ".tar": "webdataset",
}  # fmt: skip


@dataclass(frozen=True)
class Opened:
    """`num_pictures`: of a folder of pictures with a table, in which each should have a row."""

    data: "datasets.Dataset | datasets.IterableDataset"
    num_pictures: int = 0

    def tell_left_out(self, path: str, num_rows: int) -> None:
        """Say on the terminal how many pictures have no row, since `datasets` leaves them out."""
        if (num := self.num_pictures - num_rows) > 0:
            print(
                f"ingest: {path}: {num} of {self.num_pictures} pictures have no row in its table "
                "and are left out, as datasets does; write their rows, or use source folder",
                file=sys.stderr,
            )


def open_data_set(path: str, split: str) -> Opened:
    """Raises DistilleryError in one line where there is no such data set or split."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    local = Path(path)
    if not local.exists() and (path.count("/") > 1 or path.startswith((".", "/", "~"))):
        raise DistilleryError(f"{path}: not found; set ingest.path to a folder, file or hub id")
    try:
        if any((local / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return Opened(_of_split(datasets.load_from_disk(path), path, split))
        if local.exists() and not local.is_dir():
            return _streamed(_builder(local), split, data_files={split: str(local)})
        return _streamed(path, split)
    except DistilleryError:
        raise
    except Exception as error:  # hub, network and builders raise whatever they like
        raise _unreadable(path, error, local.exists()) from None


def _streamed(name: str, split: str, **options: Any) -> Opened:
    """Rows as they are asked for; of parquet some at once.

    As shipped, what was read of parquet stays in memory, and Arrow reads up to 1 GiB ahead of who
    asks. Row group by row group it does not; of the hub that would be a request each, so there it
    does.
    """
    import datasets
    import pyarrow.dataset

    builder = datasets.load_dataset_builder(name, **options)
    if hasattr(builder.config, "fragment_scan_options"):
        builder.config.batch_size = _BATCH_ROWS
        builder.config.fragment_scan_options = pyarrow.dataset.ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=BUFFER_BYTES
        )
        if Path(name).exists() or "data_files" in options:
            return Opened(builder.as_streaming_dataset(split=split).reshard())
    return Opened(builder.as_streaming_dataset(split=split), _num_pictures(builder, split))


def _num_pictures(builder: Any, split: str) -> int:
    """Files of pictures that a folder of them with a table of rows has; 0 for all else."""
    if not hasattr(builder.config, "drop_metadata"):
        return 0
    files = (builder.config.data_files or {}).get(split, [])
    return sum(is_file_name(str(file)) for file in files)


def _builder(file: Path) -> str:
    """Who reads a local file; no name of a file is ever looked up on the hub."""
    if not file.is_file() or (builder := _BUILDERS.get(file.suffix.lower())) is None:
        known = ", ".join(_BUILDERS)
        raise DistilleryError(f"{file}: no file of {known}; give one, or its folder")
    if builder == "parquet" and pq.read_metadata(file).num_rows == 0:
        raise DistilleryError(f"{file}: holds no rows; check ingest.path")
    return builder


def _unreadable(path: str, error: Exception, is_local: bool) -> DistilleryError:
    remedy = (
        "correct ingest.path or ingest.datasets.split"
        if is_local
        else "no such folder or file here, and the hub gives no such data set: check the id and "
        "the network, or download it and set ingest.path to the folder"
    )
    why = kind_and_reason(error)[:300]
    return DistilleryError(f"{path}: not readable by datasets ({why}); {remedy}")


def _of_split(data: Any, path: str, split: str) -> "datasets.Dataset":
    """A saved data set, or the split of a saved mapping of them."""
    splits = data if isinstance(data, Mapping) else {str(data.split or split): data}
    if split not in splits:
        raise DistilleryError(
            f"{path}: no split {split}, it has {', '.join(splits)}; correct ingest.datasets.split"
        )
    return splits[split]
