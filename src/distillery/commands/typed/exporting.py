"""The `distillery export` command, as it is typed; what it does is in `commands.export`."""

from pathlib import Path
from typing import Annotated

import typer

from distillery.core.errors import DistilleryError


def export(
    model: Annotated[
        Path,
        typer.Argument(help="A student's folder, models/unet/elr, or its name, whole/student."),
    ],
    out: Annotated[Path, typer.Argument(help="The file or folder to write; it must not exist.")],
    to: Annotated[
        str, typer.Option(help="diffusers, single-file, kohya, hub, comfyui-node or student.")
    ],
    controlnet: Annotated[
        Path | None, typer.Option(help="A ControlNet student's folder, for a whole student.")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Half precision in a single file.")] = False,
    push: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Upload the hub folder there.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make REPO_ID private.")] = False,
    base_model: Annotated[
        str | None, typer.Option(help="The teacher's hub id; else as the model's card says.")
    ] = None,
    license_id: Annotated[
        str | None, typer.Option("--license", help="As the hub names it; else the card's.")
    ] = None,
    dataset: Annotated[
        list[str] | None, typer.Option(help="Hub id of what it was trained on; may be repeated.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="For the card; else metrics/FAMILY/VARIANT.json if there.")
    ] = None,
) -> None:
    """Write a student in the form that another tool reads.

    It is shown to be equal first.

    Example: distillery export models/unet/elr --to single-file elr.safetensors --fp16
    Example: distillery export models/guidance/lora_distill --to kohya lora.safetensors
    Example: distillery export models/unet/elr --to hub elr-hub --push me/elr
    Example: distillery export whole/student --to student models/whole/student
    """
    from distillery.commands.export import export as write
    from distillery.commands.export_options import Options
    from distillery.export import upload

    if push is not None and to != "hub":
        raise DistilleryError(f"--push goes with --to hub, not {to}")
    if private and push is None:
        raise DistilleryError("--private goes with --push REPO_ID")
    if push is not None:
        upload.require_id(push)
    options = Options(fp16, license_id, base_model, dataset or (), metrics)
    typer.echo(write(model, to, out, options, controlnet))
    if push is not None:
        typer.echo(f"uploaded to {upload.push(out, push, private)}")


def lora_transfer(
    lora: Annotated[Path, typer.Argument(help="A LoRA trained on the teacher, .safetensors.")],
    student: Annotated[Path, typer.Argument(help="A low-rank student's folder.")],
    out: Annotated[Path, typer.Argument(help="The student's folder to write.")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Raise ranks so that nothing of it is lost.")
    ] = False,
) -> None:
    """Take a LoRA of the teacher over to a low-rank student.

    It is merged into the weights, which are factorised again; the student grows only with --exact.

    Example: distillery lora-transfer style.safetensors models/unet/elr models/unet/elr_style
    """
    from distillery.commands import lora_transfer as command

    typer.echo(command.lora_transfer(lora, student, out, exact=exact))
