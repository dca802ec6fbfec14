"""How well a latency table predicts whole plans: five random ones, timed beside the table itself.

A plan leaves a layer dense, or gives it an aligned rank, at random, and removes some blocks. Tables
and plans are timed in turn in the same rounds. Prints measured and predicted milliseconds and the
error of each, the roofline's prediction from three constants, and of both the largest error.

Usage: python benchmarks/latency_plans.py [--preset scenes] [--device cpu] [--dtype fp32]
       [--batch 1] [--resolution PX] [--rounds 15] [--plans 5]
"""

import argparse
import random
from collections.abc import Mapping

import torch

from distillery.commands.latency import load_parts, parts_of
from distillery.core.precision import torch_dtype
from distillery.cost.latency import make
from distillery.cost.latency.measure import Clock, time_units
from distillery.cost.latency.roofline import measure_machine
from distillery.cost.latency.table import LatencyTable, plan_s
from distillery.cost.latency.units import Anatomy, Unit, aligned_ranks
from distillery.models.lowrank.ranks import KEEP_DENSE
from distillery.models.lowrank.removed import layers_kept
from distillery.models.lowrank.unet import LowRankUNet2DConditionModel

SHARE_DENSE, SHARE_REMOVED = 0.35, 0.15
Plan = tuple[dict[str, int], list[str]]


def random_plan(parts: Anatomy, multiple_of: int, draw: random.Random) -> Plan:
    """Ranks and removed blocks."""
    removed = [name for name in parts.blocks if draw.random() < SHARE_REMOVED]
    ranks = {
        name: draw.choice(choices)
        for name, shape in layers_kept(parts.shapes, removed).items()
        if name not in KEEP_DENSE
        and (choices := aligned_ranks(shape, multiple_of))
        and draw.random() > SHARE_DENSE
    }
    return ranks, removed


def unit_of(parts: Anatomy, plan: Plan, name: str) -> Unit:
    """The whole student of a plan, to be timed."""
    student = LowRankUNet2DConditionModel.empty(parts.model.module.config, *plan).to("meta")
    return Unit(name, student, parts.model.inputs, parts.model.named)


def measure(parts: Anatomy, clock: Clock, plans: Mapping[str, Plan], multiple_of: int) -> tuple:
    """The table of this run, and the seconds of its plans."""
    forms = make.forms_of(parts, multiple_of)
    units = {("plans", name, ""): (unit_of(parts, p, name), None) for name, p in plans.items()}
    num_weights = sum(p.numel() for p in parts.model.module.parameters())
    seconds = time_units({**forms, **units}, clock, num_weights)
    own = {place: seconds[place] for place in forms}
    table = LatencyTable("now", make.MEASURED, multiple_of, **make.grouped(own), facts={})
    return table, {name: seconds["plans", name, ""]["median_s"] for name in plans}


def main() -> None:
    arguments = parse()
    device, dtype = torch.device(arguments.device), torch_dtype(arguments.dtype)
    parts = parts_of(load_parts(arguments.preset), arguments.resolution)
    multiple_of = make.alignment(make.device_slug(device), str(dtype).removeprefix("torch."))
    draw = random.Random(0)
    plans = {str(i): random_plan(parts, multiple_of, draw) for i in range(arguments.plans)}
    runtime = "graph" if device.type == "cuda" else "eager"
    clock = Clock(device, dtype, arguments.batch, runtime, num_rounds=arguments.rounds)
    table, seconds = measure(parts, clock, plans, multiple_of)
    roofline = make.predict_table(
        parts, measure_machine(device, dtype), name="roofline", multiple_of=multiple_of,
        dtype=str(dtype).removeprefix("torch."), batch_size=arguments.batch,
    )  # fmt: skip
    tables = {"balanced": table.balanced(parts), "table": table, "roofline": roofline}
    report(parts, tables, {"dense": ({}, []), **plans},
           {"dense": table.model_s(parts.model.key), **seconds})  # fmt: skip


def report(
    parts: Anatomy,
    tables: Mapping[str, LatencyTable],
    plans: Mapping[str, Plan],
    seconds: Mapping[str, float],
) -> None:
    print(f"{'plan':<8}{'ranks':>6}{'removed':>9}{'measured':>11}", end="")
    print("".join(f"{name:>20}" for name in tables))
    worst = dict.fromkeys(tables, 0.0)
    for name, (ranks, removed) in plans.items():
        line = f"{name:<8}{len(ranks):>6}{len(removed):>9}{seconds[name] * 1e3:>9.3f}ms"
        for kind, table in tables.items():
            predicted = plan_s(table, parts, ranks, removed)
            error = predicted / seconds[name] - 1
            line += f"{predicted * 1e3:>10.3f}ms{error:>+8.1%}"
            worst[kind] = max(worst[kind], abs(error))
        print(line)
    print("largest error: " + ", ".join(f"{kind} {error:.1%}" for kind, error in worst.items()))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="scenes")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--plans", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
