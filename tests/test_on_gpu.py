"""scripts/on_gpu.sh, as far as a CPU goes: all four parts at tiny sizes, in one process."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_FILES = 8


def test_a_dry_run_writes_what_docs_results_takes(tmp_path: Path, python: Path):
    out = tmp_path / "out"
    changed = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": f"{python}:{os.environ['PATH']}"}
    process = subprocess.run(
        ["scripts/on_gpu.sh", "--dry", str(out)], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, **changed},
    )  # fmt: skip
    assert process.returncode == 0, process.stdout[-4000:]
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) <= MAX_FILES
    records = {path.parent.name + path.name: json.loads(path.read_text())
               for path in files if path.suffix == ".json"}  # fmt: skip
    assert {"profile", "runtime"} == {path.parent.name for path in files if path.suffix == ".json"}
    rows = {name: row for record in records.values() for name, row in record["rows"].items()}
    assert {name: row["error"] for name, row in rows.items() if "error" in row} == {}
    assert rows["runtimes/eager again"]["equal"]
    assert {"chain/generate_unet unet/elr", "low_rank/eager/loop", "dense/reference",
            "whole student/b1/eager", "inference/unet/dense"} <= set(rows)  # fmt: skip
