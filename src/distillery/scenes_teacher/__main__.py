"""`python -m distillery.scenes_teacher --out FOLDER`: train the scenes teacher."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from distillery.core.errors import DistilleryError
from distillery.scenes_teacher.recipe import (
    COMPONENTS,
    RECIPE,
    train_component,
    train_scenes_teacher,
)


def main() -> int:
    """Parse the command line and train; returns the exit code."""
    parser = argparse.ArgumentParser(prog="distillery.scenes_teacher", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work/scenes-teacher"))
    parser.add_argument("--component", choices=COMPONENTS, help="train this one and stop")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    try:
        recipe = yaml.safe_load(options.recipe.read_text())["recipe"]
        run(recipe, options)
    except (DistilleryError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(recipe: dict, options: argparse.Namespace) -> None:
    """All components, or the one that was asked for."""
    if options.component:
        import torch

        torch.set_num_threads(options.num_threads)
        train_component(
            options.component, recipe, options.work, seed=options.seed, device=options.device
        )
        return
    train_scenes_teacher(
        recipe,
        options.out,
        options.work,
        num_threads=options.num_threads,
        seed=options.seed,
        device=options.device,
    )


if __name__ == "__main__":
    sys.exit(main())
