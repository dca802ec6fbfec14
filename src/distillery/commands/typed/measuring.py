"""Commands of `distillery` that count, plan and time.

In: folders, presets, params files. Out: a table or JSON on standard output, and files where asked.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from distillery.core import artifacts

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Preset = Annotated[
    str,
    typer.Option(help="sd15, sd21, scenes (the shipped teacher), a params file or a preset's."),
]
Architecture = Annotated[
    str, typer.Option(help="sd15, sd21, scenes (the shipped teacher) or a diffusers folder.")
]
TeacherFolder = Annotated[
    Path | None,
    typer.Option(help="A diffusers folder: its weights, its shapes instead of the preset's."),
]
TeacherCache = Annotated[
    Path | None, typer.Option(help="The teacher's cache, to measure what removals do.")
]
RanksFile = Annotated[
    Path | None,
    typer.Option(dir_okay=False, help="For init_student.rank: {rule: file, file: ...}."),
]


def params(
    preset: Preset = "params.yaml", teacher: TeacherFolder = None, as_json: AsJson = False
) -> None:
    """Count every model before anything is trained.

    The papers' models, and a params file's students. Five scopes: all parts, U-Net, adapter,
    what has a gradient, what the optimiser holds.

    Example: distillery params --preset sd21
    Example: distillery params --preset params.yaml --json
    """
    from distillery.commands import params as command

    found = command.count(preset, teacher)
    typer.echo(command.as_json(found) if as_json else command.as_text(found))


def ranks(
    preset: Preset = "params.yaml",
    target_total: Annotated[
        str | None, typer.Option(help="Parameters of U-Net, text encoder and VAE, such as 790M.")
    ] = None,
    target_unet: Annotated[str | None, typer.Option(help="Parameters of the U-Net.")] = None,
    target_flops: Annotated[
        str | None, typer.Option(help="FLOPs of a U-Net evaluation, batch size 1.")
    ] = None,
    target_ms: Annotated[
        str | None, typer.Option(help="Milliseconds of a U-Net evaluation, by --device's table.")
    ] = None,
    target_share: Annotated[
        str | None, typer.Option(help="Of the dense U-Net's latency, such as 0.5.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Latency table: h100-fp16-b8, cpu-fp32-b1, or its file.")
    ] = None,
    tables: Annotated[
        Path, typer.Option(help="File or folder in which --device's table is looked for.")
    ] = Path("docs/results/latency"),
    teacher: TeacherFolder = None,
    cache: TeacherCache = None,
    multiple_of: Annotated[
        int | None, typer.Option(min=1, help="Of ranks, with --device; else as its table says.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Pixels, with --device; the preset's own if none.")
    ] = None,
    out: RanksFile = None,
    as_json: AsJson = False,
) -> None:
    """Plan a low-rank U-Net for a target, and say what it costs.

    With a teacher's weights the ranks follow its spectra, beside the uniform rule's error. With
    --device the plan is for a device: layers are kept or factorised at aligned ranks, blocks are
    removed (with --cache), and several targets may be given.

    Example: distillery ranks --preset sd21 --target-total 790M
    Example: distillery ranks --teacher models/teacher --target-unet 1.5M --out ranks.json
    Example: distillery ranks --preset sd15 --device h100-fp16-b8 --target-ms 14 --target-unet 430M
    """
    given = {
        "--target-ms": target_ms, "--target-share": target_share, "--target-total": target_total,
        "--target-unet": target_unet, "--target-flops": target_flops,
    }  # fmt: skip
    if device is None:
        from distillery.commands import ranks as command

        said = command.plan(preset, given, teacher=teacher)
    else:
        from distillery.commands import ranks_device as command

        said = command.plan(
            preset, device, given, teacher=teacher, cache=cache, tables=tables,
            multiple_of=multiple_of, resolution_px=resolution,
        )  # fmt: skip
    if out:
        artifacts.write_json(out, said)
    typer.echo(json.dumps(said, indent=1) if as_json else command.as_text(said))


def latency(
    preset: Preset = "params.yaml",
    device: Annotated[
        str, typer.Option(help="cpu or cuda; h100, h200, a100 are predicted.")
    ] = "cpu",
    dtype: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    batch: Annotated[str, typer.Option(help="Images per evaluation, one table for each.")] = "1",
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Pixels; the preset's own if none.")
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="If timed: eager, or graph (CUDA graphs, the default there).")
    ] = None,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="If timed.")] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Each times all forms in turn.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Of the CPU, as params' num_threads.")] = 1,
    multiple_of: Annotated[
        int | None, typer.Option(min=1, help="Of ranks: 64 for half precision on GPUs, else 8.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Stands for the device in tables' names.")
    ] = None,
    predict: Annotated[
        bool,
        typer.Option("--predict", help="By three constants, measured here, not layer by layer."),
    ] = False,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Where to write the tables."),
    ] = None,
) -> None:
    """Time every distinct layer of a U-Net, dense and low-rank.

    Low-rank at aligned ranks, and block by block.

    `distillery ranks --target-ms` plans with the tables that lie in docs/results/latency.

    Example: distillery latency --preset sd15 --device cuda --dtype fp16 --batch 1,8 --json f.json
    Example: distillery latency --preset sd15 --resolution 128 --json cpu.json
    Example: distillery latency --preset sd21 --device h100 --dtype fp16 --batch 8
    """
    from distillery.commands import latency as command
    from distillery.commands.profile import batch_sizes_in
    from distillery.core.threads import set_threads
    from distillery.cost.latency.table import write_form

    set_threads(threads)
    tables = command.measure(
        preset, device=device, dtype=dtype, batch_sizes=batch_sizes_in(batch, "--batch"),
        resolution_px=resolution, runtime=runtime, channels_last=channels_last, num_rounds=rounds,
        multiple_of=multiple_of, name=name, predict=predict,
    )  # fmt: skip
    if json_path:
        artifacts.write_json(json_path, write_form(tables))
    typer.echo(command.as_text(tables, command.architecture_parts(preset, resolution)))


def profile(
    preset: Architecture = "sd15",
    rows: Annotated[
        str, typer.Option(help="all, training, inference, or names separated by commas.")
    ] = "all",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images per training step.")] = 1,
    batch_sizes: Annotated[str, typer.Option(help="Images per evaluation, in turn.")] = "1,8",
    resolution: Annotated[
        int | None, typer.Option(min=8, help="Pixels; the preset's own if none.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=0, help="Timed rounds; 0 predicts only.")] = 3,
    dtype: Annotated[
        str, typer.Option(help="fp32, bf16 or fp16; training mixes it with fp32.")
    ] = "fp32",
    weights: Annotated[str, typer.Option(help="Trained: fp32, or bf16 (predicted).")] = "fp32",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Training recomputes its activations.")
    ] = False,
    runtime: Annotated[
        str, typer.Option(help="eager, compile, graph, or several; the quickest counts.")
    ] = "eager",
    plan: Annotated[
        Path | None, typer.Option(help="Of distillery ranks --out, for the planned U-Net.")
    ] = None,
    memory_gb: Annotated[
        float | None, typer.Option(min=1, help="Say which batch fits; nothing is run.")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Where to write the figures."),
    ] = None,
) -> None:
    """Time training steps and evaluations at full size.

    Weights are random, memory is predicted too. Training rows are the papers' tables. Inference
    rows are a step of sampling: guided teacher and student, ControlNets, the whole student.
    What does not fit the device says so, with the analytic numbers. With --memory-gb it says
    what to set under `training` for steps of --batch samples on such a device.

    Example: distillery profile --preset sd15 --dtype bf16 --batch 16 --memory-gb 24
    Example: distillery profile --preset sd15 --device cuda --dtype fp16 --runtime eager,graph
    Example: distillery profile --preset sd15 --rows uni_controlnet,elr --device cuda --json f.json
    Example: distillery profile --preset sd21 --rows inference --batch-sizes 1,8 --resolution 256
    """
    from distillery.commands import profile as command
    from distillery.commands.profile_fit import fit
    from distillery.commands.profile_text import as_text

    common = {
        "batch_size": batch, "resolution_px": resolution, "dtype": dtype, "weights": weights,
        "checkpointing": checkpointing, "runtimes": command.runtimes_in(runtime),
    }  # fmt: skip
    sizes = command.batch_sizes_in(batch_sizes)
    timed = {"device": device, "batch_sizes": sizes, "num_repeats": repeats, "plan": plan}
    run = partial(fit, memory_gb=memory_gb) if memory_gb else partial(command.profile, **timed)
    found = run(preset, rows, **common)
    if json_path:
        artifacts.write_json(json_path, found)
    typer.echo(as_text(found))
