"""The `distillery` command: what to run next, what models draw and cost, how good images are.

Stages are run by Snakemake or DVC, not from here. Bad input is one line on standard error and exit
code 2; `verify` ends with 1 when something is damaged.
"""

import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from distillery.commands.exporting import export
from distillery.commands.measuring import AsJson, compare, evaluate, latency, params, profile, ranks
from distillery.core import artifacts
from distillery.core.errors import DistilleryError

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
    commands: Annotated[
        bool, typer.Option("--commands", help="As a script for a machine without Snakemake.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what would run, why, how long it took last time and how much it writes.

    Example: distillery plan
    Example: distillery plan models/unet/elr --json
    Example: distillery plan --commands > run.sh
    """
    from distillery.commands import plan as command
    from distillery.params import load_params

    if commands:
        typer.echo(command.script(targets or ["all"]))
        return
    work = Path(load_params(Path("params.yaml")).paths.work)
    rows = command.plan(work, targets or ["all"])
    typer.echo(json.dumps(command.as_json(rows), indent=1) if as_json else command.as_text(rows))


@app.command()
def use(
    preset: Annotated[str, typer.Argument(help="A name in presets/, or a file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Values of your own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite edits of params.yaml.")] = False,
) -> None:
    """Write params.yaml for a preset: complete, with comments, and with your own values.

    Example: distillery use photos ingest.path=data/photos
    Example: distillery use sd21 ingest.path=data/laion distill_unet.variants.elr.steps=20000
    """
    from distillery.commands import use as command

    typer.echo(command.use(preset, settings or [], force=force))


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


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="As in models/: unet/elr, teacher/guided, ...")],
    out: Annotated[Path, typer.Option(help="Folder for the images and prompts.json.")],
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON {name: text} or CSV (file_name, text).")
    ] = None,
    conditions: Annotated[
        Path | None, typer.Option(help="Folder of condition maps named like the prompts.")
    ] = None,
    condition_kind: Annotated[
        str | None, typer.Option(help="What they are, for a model that takes several kinds.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, with the image's name.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Else params.yaml's.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, help="Else params.yaml's.")] = None,
    resolution: Annotated[
        int | None, typer.Option(min=32, help="px, a multiple of 8; else params.yaml's.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Else params.yaml's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else params.yaml's.")] = None,
    params_file: Annotated[Path, typer.Option("--params", metavar="FILE")] = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Draw prompts with the teacher or any student; run it again to go on.

    Every model draws a name from the same noise, so folders compare image by image.

    Example: distillery generate unet/elr --prompt "a red circle" --out images
    Example: distillery generate teacher/control_canny --prompts p.csv --conditions edges --out a
    """
    from distillery.commands import generate as command

    sampling = {
        "num_inference_steps": steps, "guidance_scale": guidance_scale,
        "resolution_px": resolution, "batch_size": batch_size, "device": device,
    }  # fmt: skip
    found = command.generate(
        model, out, params_file=params_file, prompts=prompt or (), prompts_file=prompts,
        conditions=conditions, kind=condition_kind, seed=seed, overrides=sampling,
    )  # fmt: skip
    said = f"{found['images']} images in {out}, {found['drawn']} of them drawn now"
    typer.echo(json.dumps(found, indent=1) if as_json else said)


for _command in (evaluate, export, params, ranks, latency, profile, compare):
    app.command()(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    gc.set_threshold(50_000)  # most of what is made is imported and stays: search it less often
    try:
        code = app(args=arguments, standalone_mode=False)
    except DistilleryError as error:
        sys.exit(_fail(str(error)))
    except _UsageError as error:
        sys.exit(_fail(f"{error.format_message()} See `distillery --help`."))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    finally:
        gc.freeze()  # and not once more at the end
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> int:
    for line in message.splitlines():
        print(f"distillery: {line}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
