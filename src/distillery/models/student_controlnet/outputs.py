"""A student ControlNet's widths, and which inner activation feeds which of its outputs.

In: channels per level and layers per block, of the U-Net (outputs) and of the student (sources).
Out: named points of an encoder, and an output map {output: source} that is known to be complete
and of matching resolutions. No modules here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillery.core.errors import DistilleryError


@dataclass(frozen=True)
class Point:
    """A place in an encoder: its name, how often the latent was halved before it, its channels."""

    name: str
    num_halvings: int
    channels: int


def encoder_points(channels: Sequence[int], layers_per_block: int) -> dict[str, Point]:
    """The points of an encoder by name, in the order of a ControlNet's outputs, `mid` last.

    `conv_in`, `level<i>.layer<j>`, `level<i>.downsampler` (none in the last level), `mid`. Each
    level halves the resolution for the next: SD has 12 points and `mid`.
    """
    points = [Point("conv_in", 0, channels[0])]
    for level, width in enumerate(channels):
        points += [Point(f"level{level}.layer{j}", level, width) for j in range(layers_per_block)]
        if level < len(channels) - 1:
            points.append(Point(f"level{level}.downsampler", level + 1, width))
    points.append(Point("mid", len(channels) - 1, channels[-1]))
    return {point.name: point for point in points}


def default_map(
    unet_channels: Sequence[int], unet_layers_per_block: int, layers_per_block: int
) -> dict[str, str]:
    """Each output from its own point; layers spread evenly where the student has fewer.

    The last layer of the U-Net's block is always fed by the student's last one.
    """
    names = {}
    for name in encoder_points(unet_channels, unet_layers_per_block):
        level, _, layer = name.partition(".layer")
        if layer:
            share = -(-(int(layer) + 1) * layers_per_block // unet_layers_per_block)
            names[name] = f"{level}.layer{share - 1}"
        else:
            names[name] = name
    return names


def check_map(
    output_map: Mapping[str, str], outputs: Mapping[str, Point], sources: Mapping[str, Point]
) -> dict[str, str]:
    """`output_map` in the order of the outputs.

    Raises DistilleryError if it leaves an output unfed, names an output or a source that does not
    exist, or feeds an output from another resolution.
    """
    if outputs["mid"].num_halvings != sources["mid"].num_halvings:
        levels = [points["mid"].num_halvings + 1 for points in (sources, outputs)]
        raise DistilleryError(f"channels: {levels[0]} levels, but the U-Net has {levels[1]}")
    unknown = [name for name in output_map if name not in outputs]
    if unknown:
        raise DistilleryError(
            f"output_map: the U-Net has no output {unknown[0]!r}; it has {', '.join(outputs)}"
        )
    for name, output in outputs.items():
        if name not in output_map:
            raise DistilleryError(f"output_map leaves {name} unfed; name a source for it, or null")
        source = sources.get(output_map[name])
        if source is None:
            raise DistilleryError(
                f"output_map: {name} is fed by {output_map[name]!r}, which this student does not "
                f"have; it has {', '.join(sources)}"
            )
        if source.num_halvings != output.num_halvings:
            fitting = [s.name for s in sources.values() if s.num_halvings == output.num_halvings]
            raise DistilleryError(
                f"output_map: {name} is at 1/{2**output.num_halvings} of the latent, its source "
                f"{source.name} at 1/{2**source.num_halvings}; use one of {', '.join(fitting)}"
            )
    return {name: output_map[name] for name in outputs}


def check_widths(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of `ControlNetModel` with widths that groups or heads do not divide.

    Raises DistilleryError that names the level, the width and the divisor.
    """
    channels, groups = arguments["block_out_channels"], arguments["norm_num_groups"]
    heads = arguments["num_attention_heads"] or arguments["attention_head_dim"]
    heads = [heads] * len(channels) if isinstance(heads, int) else heads
    for level, (width, num_heads) in enumerate(zip(channels, heads, strict=True)):
        for number, what in ((groups, "norm groups"), (num_heads, "attention heads")):
            if type(width) is not int or width < 1 or width % number:
                raise DistilleryError(
                    f"channels: {width} of level {level} are not divisible by {number} {what}; "
                    f"the next below is {int(width) // number * number}"
                )
    if channels[0] % 2:
        raise DistilleryError(f"channels: {channels[0]} of level 0 are odd; sines need pairs")
