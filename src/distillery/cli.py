"""The `distillery` command: what to run next, what models cost, how good images are.

Stages are run by Snakemake or DVC, not from here. Bad input is one line on standard error and exit
code 2; `verify` ends with 1 when something is damaged.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from distillery import artifacts
from distillery.cli_measure import AsJson, compare, evaluate, params, profile, ranks
from distillery.errors import DistilleryError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
_UsageError = typer.BadParameter.__bases__[0]  # click's; newer versions of typer hide click


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    """Smaller, faster Stable Diffusion by distillation.

    The pipeline itself runs by `snakemake --cores 8 all` or `dvc repro`.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def plan(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Rules or paths; all if none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what would run, why, how long it took last time and how much it writes.

    Example: distillery plan
    Example: distillery plan models/unet/elr --json
    """
    from distillery.commands import plan as command
    from distillery.params import load_params

    work = Path(load_params(Path("params.yaml")).paths.work)
    rows = command.plan(work, targets or ["all"])
    typer.echo(json.dumps(command.as_json(rows), indent=1) if as_json else command.as_text(rows))


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A folder of shards, a cache or a model.")],
    as_json: AsJson = False,
) -> None:
    """Check every hash under a folder that stages have written; name what is damaged.

    Example: distillery verify data/teacher_cache
    """
    problems = artifacts.verify(path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "problems": problems}, indent=1))
    else:
        typer.echo("\n".join(problems) or f"{path}: every file matches its recorded hash")
    if problems:
        raise typer.Exit(1)


@app.command()
def adopt() -> None:
    """Record in DVC what Snakemake has made; refuses while Snakemake has something to run.

    Example: snakemake --cores 8 all && distillery adopt && dvc push --run-cache
    """
    from distillery.commands import handover

    handover.adopt()
    typer.echo("DVC has recorded every output; share it with `dvc push --run-cache`.")


@app.command()
def trust() -> None:
    """Record in Snakemake what DVC has made or pulled; refuses unless `dvc status` is clean.

    Example: dvc repro --pull && distillery trust && snakemake -n all
    """
    from distillery.commands import handover

    handover.trust()
    typer.echo("Snakemake takes every output as up to date.")


for _command in (evaluate, params, ranks, profile, compare):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except DistilleryError as error:
        sys.exit(_fail(str(error)))
    except _UsageError as error:
        sys.exit(_fail(f"{error.format_message()} See `distillery --help`."))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"distillery: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
