"""How long jobs take on some cores, from what each took last time.

In: jobs in an order in which they can run, with their seconds. Out: the end of the last one if each
starts as soon as what it needs is there and a core is free. Heavy jobs have fewer places of their
own, as profiles/default says. Not here: jobs whose settings say that they take another time than
last time (`settings_differ`). Nothing is run.
"""

import heapq
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PROFILE = Path("profiles/default/profile.yaml")
# How the last names of keys begin that say how much a stage of that section computes, and on what.
_AMOUNTS = ("num_", "steps", "batch_size", "accumulate_steps", "seeds", "parts", "resolution_px",
            "device", "dtype", "precision", "runtime")  # fmt: skip
_FOR_ALL = ("data.resolution_px", "prepare_teacher.")
_IMAGES = ("data.parts", "ingest.")
_BY_IMAGE = ("ingest", "curate", "deduplicate", "extract_conditions", "cache_teacher")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def num_heavy() -> int:
    """How many heavy jobs may run at once; 1 where no profile says so."""
    values = yaml.safe_load(PROFILE.read_text()) if PROFILE.is_file() else {}
    pairs = (str(one).partition("=") for one in values.get("resources", ()))
    return max(1, *(int(number) for name, _, number in pairs if name == "heavy"), 1)


def wall_s(jobs: Sequence[Mapping[str, Any]], cores: int, heavy: int) -> float:
    """Seconds until the last of `jobs` ends; each has `seconds`, `input`, `output`, `heavy`."""
    free = {False: [0.0] * cores, True: [0.0] * min(cores, heavy)}
    there: dict[str, float] = {}
    for job in jobs:
        places = free[bool(job["heavy"])]
        ready = max((there.get(path, 0.0) for path in job["input"]), default=0.0)
        end = max(ready, heapq.heappop(places)) + job["seconds"]
        heapq.heappush(places, end)
        there |= dict.fromkeys(job["output"], end)
    return max(there.values(), default=0.0)


def settings_differ(changed: Mapping[str, Iterable[str]]) -> set[str]:
    """The jobs whose last time says nothing of the next: more steps, other images.

    `changed` has, by the labels of the jobs to run, the params keys that differ from their last
    run's. Another size or teacher is so for all of them, other images for what takes them all.
    """
    keys = {key for own in changed.values() for key in own}
    return {
        label
        for label, own in changed.items()
        if any(key.startswith(_FOR_ALL) for key in keys)
        or (label.startswith(_BY_IMAGE) and any(key.startswith(_IMAGES) for key in keys))
        or any(_is_amount(label.partition("/")[0], key) for key in own)
    }


def _is_amount(stage: str, key: str) -> bool:
    return key.partition(".")[0] in (stage, key) and key.rpartition(".")[2].startswith(_AMOUNTS)
