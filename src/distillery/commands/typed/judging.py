"""Commands of `distillery` that judge images and compare runs.

In: folders of images, runs. Out: a table or JSON on standard output, and a file of metrics.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from distillery.commands.typed.measuring import AsJson
from distillery.core.errors import DistilleryError
from distillery.data.conditions import KINDS


def evaluate(
    images: Annotated[Path, typer.Option(help="Folder of images or shards to judge.")],
    reference: Annotated[Path, typer.Option(help="Folder with images of the same names.")],
    out: Annotated[
        Path, typer.Option(help="Where to write the metrics.", metavar="FILE", dir_okay=False)
    ],
    metrics: Annotated[
        str | None,
        typer.Option(help="Comma-separated, of psnr,ssim,lpips,fid,kid,clip_score,edge_f1, ..."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON or CSV (file_name, text) for the CLIP score.")
    ] = None,
    extractor: Annotated[
        str | None, typer.Option(help="Folder or hub id of the network for FID, KID, CLIP score.")
    ] = None,
    conditions: Annotated[
        list[Path] | None, typer.Option(help="Folder of condition maps of the same names.")
    ] = None,
    condition_kind: Annotated[
        str, typer.Option(help=f"What these maps are: {', '.join(KINDS)}.")
    ] = "canny",
    segmenter: Annotated[
        str | None,
        typer.Option(help="For mIoU: scenes, or a local folder of what drew the segmentations."),
    ] = None,
    annotator: Annotated[
        str | None,
        typer.Option(help="What draws maps of images again: scenes, or a folder or hub id."),
    ] = None,
    lpips: Annotated[
        str | None, typer.Option(help="Folder of AlexNet, VGG-16 or a CLIP model for LPIPS.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Compare two folders of images by PSNR, SSIM and more.

    Files pair by name; the pipeline's own samples/ are read as they are.

    PSNR and SSIM always, others where a network is named. A metric that --metrics names and
    that can't be had is an error; otherwise it is listed as skipped, with the reason.

    Example: distillery evaluate --images student --reference teacher --out metrics.json
    Example: distillery evaluate --images samples/unet/elr --reference samples/unet/mine --out m
    Example: distillery evaluate ... --conditions M --condition-kind segmentation --segmenter F
    Example: distillery evaluate ... --conditions M --condition-kind depth --annotator scenes
    """
    from distillery.commands import evaluate as command
    from distillery.metrics.folders import Given

    if conditions and len(conditions) > 1:
        raise DistilleryError(
            f"--conditions {conditions[1]}: one folder of maps at a time; call again for the others"
        )
    maps = conditions[0] if conditions else None
    given = Given(prompts, maps, condition_kind, segmenter, extractor, lpips, device, annotator)
    contract = command.evaluate(images, reference, out, given, metrics=metrics)
    typer.echo(json.dumps(contract, indent=1) if as_json else command.as_text(contract))


def compare(
    run_a: Annotated[str, typer.Argument(help="A run's folder, or a Git revision.")],
    run_b: Annotated[str, typer.Argument(help="The other one.")],
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="A page with pictures side by side."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what changed between two runs.

    Params, and the metrics that moved beyond their intervals.

    Example: distillery compare ../yesterday .
    Example: distillery compare main HEAD --json
    Example: distillery compare ../yesterday . --html compare.html
    """
    from distillery.commands.compare.text import compare as command

    if html is not None and as_json:
        raise DistilleryError("--html is a page, --json goes to the terminal; give one of them")
    if html is not None:
        from distillery.commands.compare.html import write_html

        typer.echo(write_html(run_a, run_b, html))
        return
    typer.echo(command(run_a, run_b, as_json=as_json))
