"""Parts of scripts/on_gpu.sh, one after another in this process.

In: names of parts, a folder for results. Out: JSON files in it. Each part is a module in `parts`
with `run(place)`; what it measured is written at once, so that one that was cut short goes on.
"""

import argparse
import gc
import importlib
import importlib.util
import re
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kept import failed_rows, files, read_kept

from distillery.core.errors import DistilleryError

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--check", action="store_true", help="whether it can begin, no more")
    parser.add_argument("--failed", action="store_true", help="which rows failed, no more")
    parser.add_argument("--predict", type=int, help="what this file of profile predicts, no more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    try:
        if given.check:
            _require(given.out, given.dry)
            return 0
        if given.failed:
            return _tell_failed(given.out)
    except DistilleryError as error:
        print(error, file=sys.stderr)
        return 2
    # Here, as the process that decodes images imports this file anew, in 12 s if it held these.
    from common import Place

    place = Place(given.out, given.dry, given.photos)
    if given.predict is not None:
        importlib.import_module("parts.profile").predict(place, given.predict)
        return 0
    return _run(place, given.parts)


def _require(out: Path, is_dry: bool) -> None:
    """Raise DistilleryError where not every part could run."""
    if not re.fullmatch(r"[\w./-]+", str(out)):  # as params demand of paths, for DVC's shell
        raise DistilleryError(
            f"{out}: letters, digits and . / _ - only, as in params; give another OUT"
        )
    for path in files(out):
        read_kept(path)
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise DistilleryError(f"{', '.join(missing)}: not installed; install with pip")
    if is_dry:
        return
    import torch

    if not torch.cuda.is_available():
        raise DistilleryError("no CUDA device here; --dry runs tiny sizes on the CPU")


def _tell_failed(out: Path) -> int:
    """1 and a line that names them, where rows failed."""
    failed = failed_rows(out)
    if failed:
        print(f"failed rows: {'; '.join(failed)}")
    return 1 if failed else 0


def _run(place: Any, parts: Sequence[str]) -> int:
    """1 where a part did not get to its end."""
    import torch

    if place.dry:
        torch.set_num_threads(1)
    status = 0
    for part in parts:
        started = time.monotonic()
        try:
            module = importlib.import_module(f"parts.{part}")
            gc.freeze()  # a search for garbage, before every recording, need not look at libraries
            module.run(place)
        except DistilleryError as error:
            print(f"{part}: {error}", flush=True)
            status = 1
        except Exception:
            traceback.print_exc()
            print(f"{part}: failed", flush=True)
            status = 1
        print(f"{part}: {time.monotonic() - started:.1f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
