"""Commands of `distillery` that run the pipeline, check it and draw.

In: what a user types. Out: text or JSON on standard output, and files where asked. What a command
does is a module of `commands`, imported when it runs, so that `--help` is quick.
"""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from distillery.commands.typed.measuring import AsJson
from distillery.core.errors import DistilleryError


def plan(
    targets: Annotated[
        list[str] | None, typer.Argument(help="Rules or paths; all if none.")
    ] = None,
    commands: Annotated[
        bool, typer.Option("--commands", help="As a script for a machine without Snakemake.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what would run, why, and how long it will take here.

    A changed key is named with its old and new value. Time and size follow from each stage's last
    run here.

    Example: distillery plan
    Example: distillery plan models/unet/elr --json
    Example: distillery plan --commands > run.sh
    """
    from distillery.commands import plan as command
    from distillery.params import load_params

    if commands and as_json:
        raise DistilleryError("--commands is a script, --json a table; give one of them")
    wanted = [os.path.normpath(target) for target in targets or ["all"]]  # without ./ and last /
    if commands:
        typer.echo(command.script(wanted))
        return
    params = load_params(Path("params.yaml"))
    planned = command.plan(Path(params.paths.work), wanted)
    text = json.dumps(command.as_json(planned), indent=1) if as_json else command.as_text(planned)
    typer.echo(text)
    lock = command.lock_left() if planned.rows else ""
    for said in filter(None, (lock, command.record_cut(), command.left_over(params))):
        typer.echo(said, err=True)


def use(
    preset: Annotated[str, typer.Argument(help="A name in presets/, or a file.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Values of your own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite edits of params.yaml.")] = False,
) -> None:
    """Write a params.yaml for a preset and your own values.

    Comments stay. A params.yaml with edits of yours is refused, unless --force.

    Example: distillery use photos ingest.path=data/photos
    Example: distillery use sd21 ingest.path=data/laion distill_unet.variants.elr.steps=20000
    """
    from distillery.commands import use as command

    typer.echo(command.use(preset, settings or [], force=force))


def verify(
    path: Annotated[Path, typer.Argument(help="A folder of shards, a cache or a model.")],
    as_json: AsJson = False,
) -> None:
    """Check every hash under a folder; name what is damaged.

    Example: distillery verify data/teacher_cache
    """
    from distillery.core import artifacts

    problems = artifacts.verify(path)
    if as_json:
        typer.echo(json.dumps({"path": str(path), "problems": problems}, indent=1))
    else:
        typer.echo("\n".join(problems) or f"{path}: every file matches its recorded hash")
    if problems:
        raise typer.Exit(1)


def adopt() -> None:
    """Record in DVC what Snakemake has made.

    Refuses while Snakemake has something to run.

    Example: snakemake --cores 8 all && distillery adopt && dvc push --run-cache
    """
    from distillery.commands import handover

    handover.adopt()
    typer.echo("DVC has recorded every output; share it with `dvc push --run-cache`.")


def trust() -> None:
    """Record in Snakemake what DVC has made or pulled.

    Refuses unless `dvc status` is clean.

    Example: dvc repro --pull && distillery trust && snakemake -n all
    """
    from distillery.commands import handover

    handover.trust()
    typer.echo("Snakemake takes every output as up to date.")


def generate(
    model: Annotated[str, typer.Argument(help="Its folder, or its name, such as unet/elr.")],
    out: Annotated[Path, typer.Option(help="Folder for the images and prompts.json.")],
    prompt: Annotated[list[str] | None, typer.Option(help="What to draw; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON {name: text} or CSV (file_name, text).")
    ] = None,
    conditions: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[KIND=]DIR[:SCALE]", help="Folder of maps named like the prompts; repeatable."
        ),
    ] = None,
    condition_kind: Annotated[
        str | None, typer.Option(help="What they are, where DIR stands without a kind.")
    ] = None,
    negative: Annotated[str, typer.Option(help="What none of the images shall show.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, with the image's name.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Else params.yaml's.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, help="Else params.yaml's.")] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", "--resolution", min=32, help="px, a multiple of 8; else params.yaml's."
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Else params.yaml's.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; else params.yaml's.")] = None,
    params_file: Annotated[Path, typer.Option("--params", metavar="FILE")] = Path("params.yaml"),
    as_json: AsJson = False,
) -> None:
    """Draw prompts with the teacher or any student.

    Run it again to go on. Every model draws a name from the same noise, so folders compare
    image by image. A model's folder says what it builds on; settings that are not given are
    params.yaml's, or where there is none what the model was made for.

    Example: distillery generate unet/elr --prompt "a red circle" --out images --steps 20 --size 64
    Example: distillery generate ../run/models/guidance/lora_distill --prompt "a star" --out images
    Example: distillery generate teacher/control_canny --prompts p.csv --conditions edges --out a
    Example: distillery generate unet/elr ... --conditions depth=D:0.7 --conditions canny=C --out b
    """
    from distillery.commands import generate as command

    sampling = {
        "num_inference_steps": steps, "guidance_scale": guidance_scale,
        "resolution_px": size, "batch_size": batch_size, "device": device,
    }  # fmt: skip
    drawn = command.generate(
        model, out, params_file=params_file, prompts=prompt or (), prompts_file=prompts,
        conditions=conditions or (), kind=condition_kind, seed=seed, negative=negative,
        overrides=sampling,
    )  # fmt: skip
    typer.echo(json.dumps(drawn, indent=1) if as_json else command.as_text(drawn))


def demo(
    models: Annotated[
        list[str] | None, typer.Argument(help="Folders or names; the project's, if none.")
    ] = None,
    port: Annotated[int, typer.Option(min=1024, max=65535, help="Of the page.")] = 7860,
    params_file: Annotated[Path, typer.Option("--params", metavar="FILE")] = Path("params.yaml"),
) -> None:
    """Play with teacher and students on a local page.

    Pick models, type a prompt, draw or upload a map: images side by side with time and memory.
    Needs the extra [demo]; nothing leaves this machine.

    Example: distillery demo
    Example: distillery demo teacher/guided unet/elr models/unet/mine --port 8000
    """
    from distillery.commands import demo as command
    from distillery.commands.demo_page import serve

    serve(command.known_models(params_file, models or []), params_file, port)
