"""Parts of scripts/on_gpu.sh, one after another in this process.

In: names of parts, a folder for results. Out: JSON files in it. Each part is a module in `parts`
with `run(place)`; what it measured is written at once, so that one that was cut short goes on.
"""

import argparse
import gc
import importlib
import sys
import time
import traceback
from pathlib import Path

PARTS = ("correctness", "profile", "training", "sampling", "kernels", "stages")


def main() -> int:
    # Here, as the process that decodes images imports this file anew, in 12 s if it held these.
    import torch
    from common import Place

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=PARTS)
    parser.add_argument("--predict", type=int, help="what this file of profile predicts, no more")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    if given.predict is not None:
        from parts.profile import predict

        predict(Place(given.out, given.dry), given.predict)
        return 0
    if not given.dry and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --dry runs tiny sizes on the CPU")
    if given.dry:
        torch.set_num_threads(1)
    place = Place(given.out, given.dry, given.photos)
    failed = []
    for part in given.parts:
        started = time.monotonic()
        try:
            module = importlib.import_module(f"parts.{part}")
            gc.freeze()  # a search for garbage, before every recording, need not look at libraries
            module.run(place)
        except Exception:
            traceback.print_exc()
            failed.append(part)
        print(f"{part}: {time.monotonic() - started:.1f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
