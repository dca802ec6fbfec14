"""How long jobs take on some cores, from what each took last time.

In: jobs in an order in which they can run, with their seconds. Out: the end of the last one if each
starts as soon as what it needs is there and a core is free. Heavy jobs have fewer places of their
own, as profiles/default says. Nothing is run.
"""

import heapq
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PROFILE = Path("profiles/default/profile.yaml")


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
