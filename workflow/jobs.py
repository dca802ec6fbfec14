"""Snakemake's resolved jobs as JSON, one object per job: what plan and the parity test compare.

In: the workflow of the working directory. Out, on standard output: rule, label, command, input and
output files, watched params keys, their values and those of Snakemake's own last run, and whether
and why the job would run. Runs nothing.

    python workflow/jobs.py [--config-file FILE] [TARGET ...]
"""

import argparse
import ast
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

MAX_CHECKSUM_BYTES = 10**10  # as in profiles/, which this interface does not read


def resolve(targets: list[str], config_files: list[Path]) -> list[dict[str, Any]]:
    """All jobs needed for `targets`, in the order in which they would run."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            snakefile=Path("Snakefile"),
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=config_files),
        )
        workflow.dag(
            DAGSettings(targets=set(targets), max_checksum_file_size=MAX_CHECKSUM_BYTES)
        ).execute_workflow(executor="dryrun")
        dag = workflow._workflow.dag  # the public interface only prints the graph
        return [_describe(job, dag) for job in dag.toposorted() for job in job if job.shellcmd]


def _describe(job: Any, dag: Any) -> dict[str, Any]:
    return {
        "rule": job.rule.name,
        "label": job.log[0].split("/logs/", 1)[1].removesuffix(".log"),
        "command": job.shellcmd,
        "input": sorted(map(str, job.input)),
        "output": sorted(map(str, job.output)),
        "params": sorted(job.params["values"]),
        "values": job.params["values"],
        "heavy": int(job.resources.get("heavy", 0)),
        "needed": dag.needrun(job),
        "reason": _why(dag.reason(job)) if dag.needrun(job) else "",
        "before": _before(dag.reason(job)),
    }


def _before(reason: Any) -> dict[str, Any]:
    """The values that changed params had when Snakemake last made it, as far as it recorded them.

    It keeps the text of every param of a rule.
    """
    for text in getattr(reason.params_changed, "only_old", ()):
        with contextlib.suppress(ValueError, SyntaxError):
            if isinstance(values := ast.literal_eval(text), dict):
                return values
    return {}


def _why(reason: Any) -> str:
    """The first cause that holds, in the user's words."""
    changed = sorted(set(map(str, reason.updated_input)) - set(map(str, reason.updated_input_run)))
    causes = {
        "not made yet": reason.missing_output or reason.incomplete_output,
        "params changed": reason.params_changed,
        "command changed": reason.code_changed,
        f"changed: {', '.join(changed)}": changed,
        "other inputs": reason.input_changed,
        "after what comes before": reason.updated_input_run,
    }
    return next((cause for cause, holds in causes.items() if holds), "forced")


def main() -> None:
    """Print the jobs, one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config-file", action="append", default=[], type=Path)
    parser.add_argument("targets", nargs="*", default=["all"])
    arguments = parser.parse_args()
    try:
        jobs = resolve(arguments.targets, arguments.config_file)
    except (RuleException, WorkflowError) as error:  # a target that no rule makes, for one
        sys.exit(str(error))
    for job in jobs:
        sys.stdout.write(json.dumps(job) + "\n")


if __name__ == "__main__":
    main()
