"""From the start of a stage's process to the stage's first own line: forked against imported anew.

In one run, alternating: each stage once by the server of `distillery.core.warm`, as under a front
end, and once importing for itself. The stages are asked for inputs that do not exist, which is the
first thing that they look at: what is measured is all before. Elapsed time and processor time of
the process, its child and the server's share of forking; medians, and the ratio of cold / warm with
a 95% bootstrap interval.

Usage: python benchmarks/starting.py [--repeats 5] [--json FILE]
"""

import argparse
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from results import keep
from timing import ratio_interval

from distillery.core.code.lock import stage_inputs
from distillery.core.warm.client import SWITCH

ROOT = Path(__file__).resolve().parents[1]
STAGES = {"distill_unet": "model", "generate": "samples", "evaluate": "metrics"}
TICKS = os.sysconf("SC_CLK_TCK")


def start_server(address: Path) -> int:
    """The process id of a server, once it has imported."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        folder = ROOT / "src/distillery/core/warm"
        words = [str(listener.fileno()), str(os.getpid())]
        command = [sys.executable, "-P", str(folder), *words]
        return subprocess.Popen(command, pass_fds=[listener.fileno()]).pid


def used_s(process: int) -> float:
    """Processor time of a process and of the children that it waited for."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(stage: str, warm: str, server: int) -> tuple[float, float]:
    """Elapsed and processor seconds of one start."""
    inputs = [w for name in stage_inputs(stage) for w in (f"--{name}", "none")]
    words = ["--params", "params.yaml", "--variant", "elr", *inputs, f"--{STAGES[stage]}", "out"]
    before, at_server, start = children_s(), used_s(server), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", f"distillery.stages.{stage}", *words], cwd=ROOT, check=False,
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "src", SWITCH: warm},
    )  # fmt: skip
    elapsed_s = time.monotonic() - start
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    return elapsed_s, children_s() - before + used_s(server) - at_server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        address = Path(folder) / "socket"
        server = start_server(address)
        measure("generate", str(address), server)  # waits until it has imported
        for stage in STAGES:
            pairs = [
                [measure(stage, warm, server) for warm in ("0", str(address))]
                for _ in range(asked.repeats)
            ]
            times = np.array(pairs)  # repeat, cold or warm, elapsed or processor
            for name, clock in (("elapsed_s", 0), ("processor_s", 1)):
                cold, warm = times[:, 0, clock], times[:, 1, clock]
                middle, low, high = ratio_interval(cold, warm)
                row = {
                    "stage": stage, "clock": name, "cold": round(float(np.median(cold)), 2),
                    "warm": round(float(np.median(warm)), 2), "ratio": round(middle, 1),
                    "ci": [round(low, 1), round(high, 1)], "n": asked.repeats,
                }  # fmt: skip
                rows.append(row)
                print(row, flush=True)
    keep({"rows": rows}, asked.json, ("diffusers", "torch", "transformers"))


if __name__ == "__main__":
    main()
