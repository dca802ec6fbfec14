"""Turns a finished run into one file under `docs/results/`, to be committed.

In: the run's params file, its `metrics/` folder. Out: `<date>-<preset>.json` with the metrics of
every variant, the profile, seeds, versions and where it ran; beside it, in `per_image/`, the values
of each image that claims compare. The date is given or today's: this file is a record, not an
artefact of the pipeline.

    python -m distillery.commands.collect --params presets/scenes-full.yaml --preset scenes-full \\
        --metrics metrics --results docs/results --machine "2 cores, 8 GiB"

It prints the file's name and, for the README, the main metrics as a Markdown table.
"""

import argparse
import datetime
import sys
from pathlib import Path
from typing import Any

from distillery.core.artifacts import hash_json, made_with, write_json
from distillery.core.code.libraries import library_versions
from distillery.core.errors import DistilleryError
from distillery.params.leftovers import leftovers, without
from distillery.params.presets import load_preset
from distillery.report.claims import read_claims
from distillery.report.evidence import PER_IMAGE, Results, per_image_file, read_run
from distillery.report.markdown import markdown

README_METRICS = {
    "prediction_distance": "distance to the teacher's prediction ↓",
    "kid": "KID ↓",
    "reader_shape": "shapes as asked ↑",
    "reader_colour": "colours as asked ↑",
    "clip_score": "CLIP score ↑",
}


def collect_results(
    params_file: Path, metrics: Path, results: Path, *, preset: str, machine: str, date: str
) -> tuple[Path, Results]:
    """Write the results file; returns its path and the run, of what the params name.

    Raises DistilleryError where nothing was evaluated, or with other seeds than the params say.
    """
    params = load_preset(params_file)
    seeds = list(params.seeds)
    with without(leftovers(params), {"metrics": metrics}, "collect") as seen:
        run = read_run(seen["metrics"], preset, tuple(seeds))
    if not run.metrics:
        raise DistilleryError(f"{metrics}: no metrics files; run the pipeline first")
    for variant, values in run.metrics.items():
        used_seeds = {tuple(metric["seeds"]) for metric in values["metrics"].values()}
        if not variant.startswith(("teacher/", "whole/")) and used_seeds != {tuple(seeds)}:
            raise DistilleryError(
                f"{metrics}/{variant}.json: made with other seeds than {seeds}; run evaluate again"
            )
    path = results / f"{date}-{preset}.json"
    record = {
        "date": date,
        "preset": preset,
        "machine": machine,
        "device": run.profile.get("device", params.device),
        "seeds": seeds,
        "params_fingerprint": hash_json(params.model_dump(mode="json")),
        "versions": library_versions(()) | made_with(Path(params.paths.models)),
        "metrics": {
            variant: {k: v for k, v in values.items() if k != PER_IMAGE}
            for variant, values in run.metrics.items()
        },
        "profile": dict(run.profile),
    }
    write_json(path, record)
    write_json(per_image_file(path), _per_image(run))
    return path, run


def _per_image(run: Results) -> dict[str, Any]:
    """{variant: {"keys", "values"}} of the metrics that claims compare."""
    rules = [claim["rule"] for claim in read_claims() if claim["rule"]]
    wanted = {rule["metric"] for rule in rules}
    per_image = {}
    for variant, values in run.metrics.items():
        kept = values.get(PER_IMAGE, {"keys": [], "values": {}})
        chosen = {name: seeds for name, seeds in kept["values"].items() if name in wanted}
        if chosen:
            per_image[variant] = {"keys": kept["keys"], "values": chosen}
    return per_image


def main() -> None:
    """Command line of `collect_results`."""
    parser = argparse.ArgumentParser(prog="python -m distillery.commands.collect")
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--metrics", type=Path, default=Path("metrics"))
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--preset", required=True, help="name of the run in tables")
    parser.add_argument("--machine", required=True, help="cores, memory, device; no host name")
    parser.add_argument("--date", default=datetime.date.today().isoformat())
    args = parser.parse_args()
    try:
        path, run = collect_results(
            args.params,
            args.metrics,
            args.results,
            preset=args.preset,
            machine=args.machine,
            date=args.date,
        )
    except DistilleryError as error:
        print(f"collect: {error}", file=sys.stderr)
        sys.exit(2)
    print(path)
    print(markdown(run, README_METRICS))


if __name__ == "__main__":
    main()
