"""What training and decomposition left behind, as charts.

In: `training.json` of models, the layer report of the decomposition. Out: SVG text. Not here: the
look of charts (`look`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

from distillery.families.names import label
from distillery.report.labels import end_labels
from distillery.report.look import ACCENT, LINE, SECOND, STYLE, colours_of, new_figure, to_svg

MIN_TICK_SHARE = 0.03
KD = "kd_"
OBJECTIVES = {"teacher": "distillation loss", "noise": "diffusion loss"}


def training_curves(histories: Mapping[str, Mapping[str, Any]], main: str | None) -> str | None:
    """Loss over steps, a panel per objective: training thin, validation thick, `main` in colour.

    `histories`: {variant: training.json}; losses of different objectives can't be compared.
    """
    groups: dict[str, list[str]] = {}
    for variant, training in histories.items():
        if any(seed["train"] for seed in _seeds(training)):
            groups.setdefault(_objective(training), []).append(variant)
    if not groups:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(width=6.4, height=2.7 * len(groups), nrows=len(groups))
        for axis, (objective, variants) in zip(axes[:, 0], sorted(groups.items()), strict=True):
            colours = colours_of(variants, main)
            ends = [
                (*_draw_curves(axis, v, histories[v], colour), v == main)
                for v, colour in zip(variants, colours, strict=True)
            ]
            axis.set(title=OBJECTIVES.get(objective, objective), yscale="log")
            axis.grid(axis="y")
            axis.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
            axis.margins(y=0.12)
            last_step = max(end[0] for end in ends)
            axis.set_xlim(0, 1.55 * max(last_step, 1))
            axis.xaxis.set_major_locator(mpl.ticker.FixedLocator(_steps(last_step)))
            figure.draw_without_rendering()
            end_labels(axis, ends, colours)
        axes[-1, 0].set_xlabel("steps")
        return to_svg(figure, "training and validation loss over steps")


def _objective(training: Mapping[str, Any]) -> str:
    """What the loss is of: losses of one objective, or of the same terms, share a panel."""
    named = training["settings"].get("objective")
    if isinstance(named, str):
        return named
    last = next((seed["train"][-1] for seed in _seeds(training) if seed["train"]), {})
    terms = [name for name in last if name not in ("step", "loss", "learning_rate", "grad_norm")]
    short = sorted({name.split("_")[0] if name.startswith(KD) else name for name in terms})
    return f"loss: {' + '.join(short)}" if len(short) > 1 else "loss"


def _steps(last: int) -> list[float]:
    """Ticks up to the last step: beyond it there is room for labels only."""
    ticks = mpl.ticker.MaxNLocator(5, integer=True).tick_values(0, max(last, 1))
    return [tick for tick in ticks if tick <= last]


def _seeds(training: Mapping[str, Any]) -> list[dict[str, list]]:
    return [{"train": [], "val": []} | seed for seed in training["seeds"].values()]


def _draw_curves(
    axis: Axes, variant: str, training: Mapping[str, Any], colour: str
) -> tuple[float, float, str]:
    end = (0.0, 1.0)
    for seed in _seeds(training):
        for phase, style in (("train", {"lw": 0.7, "alpha": 0.45}), ("val", {"lw": 2.0})):
            points = [(entry["step"], entry["loss"]) for entry in seed[phase]]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, **style)
                end = (max(end[0], points[-1][0]), points[-1][1])
    return (*end, label(variant))


def layer_terms(histories: Mapping[str, Mapping[str, Any]], main: str | None) -> str | None:
    """The layerwise loss of every output, at the first validation (thin) and the last (thick)."""
    by_variant = {variant: terms for variant, t in histories.items() if (terms := _kd_terms(t))}
    if not by_variant:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(width=6.4, height=3.2)
        axis, ends = axes[0, 0], []
        colours = colours_of(list(by_variant), main)
        for (variant, (first, last)), colour in zip(by_variant.items(), colours, strict=True):
            axis.plot(range(len(first)), list(first.values()), color=colour, lw=0.8, alpha=0.6)
            axis.plot(range(len(last)), list(last.values()), color=colour, lw=2, marker="o", ms=3)
            ends.append((len(last) - 1, list(last.values())[-1], label(variant), variant == main))
        names = [name.removeprefix(KD) for name in next(iter(by_variant.values()))[1]]
        axis.set_xticks(range(len(names)), names)
        axis.set(title="layerwise loss of each ControlNet output", xlabel="output", yscale="log")
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
        axis.set_xlim(-0.3, 1.5 * max(len(names) - 1, 1))
        axis.grid(axis="y")
        figure.draw_without_rendering()
        end_labels(axis, ends, colours)
        return to_svg(figure, "layerwise distillation loss per ControlNet output")


def _kd_terms(training: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]] | None:
    """{term: value} at the first and the last validation of the first seed, else of training."""
    for phase in ("val", "train"):
        entries = [e for e in _seeds(training)[0][phase] if any(k.startswith(KD) for k in e)]
        if entries:
            first, last = entries[0], entries[-1]
            names = sorted((k for k in last if k.startswith(KD)), key=_output_order)
            return tuple({n: max(e.get(n, 0.0), 1e-12) for n in names} for e in (first, last))
    return None


def _output_order(name: str) -> tuple[int, str]:
    """Numbered outputs in their order, then the others (`mid`)."""
    number = "".join(c for c in name if c.isdigit())
    return (int(number) if number else 10**6, name)


def layer_map(layers: Sequence[Mapping[str, Any]]) -> str | None:
    """Per decomposed layer, in the network's order: the SVD's error, and its rank."""
    if not layers:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(width=9.2, height=4.0, nrows=2, sharex=True)
        layers = sorted(layers, key=lambda layer: _depth(layer["name"]))
        places = range(len(layers))
        colours = [
            ACCENT if layer["kind"].lower().startswith("conv") else SECOND for layer in layers
        ]
        top, bottom = axes[:, 0]
        top.vlines(places, 0, [layer["relative_error"] for layer in layers], color=colours, lw=2)
        top.set(title="error of the truncated weight, relative to its norm", ylim=(0, None))
        full = [layer["full_rank"] for layer in layers]
        bottom.bar(places, full, color=LINE, width=0.8)
        bottom.bar(places, [layer["rank"] for layer in layers], color=colours, width=0.8)
        bottom.set(title="rank kept, of the full rank", xlim=(-1, len(layers)))
        for axis in (top, bottom):
            axis.grid(axis="y")
        ticks = _block_starts([layer["name"] for layer in layers])
        bottom.set_xticks(list(ticks.values()), list(ticks), ha="left", fontsize=9)
        return to_svg(figure, "error and rank of every decomposed layer")


def _depth(name: str) -> int:
    """Order of computation: diffusers lists the decoder before the middle."""
    order = ("time", "down", "mid", "up")
    return next((i for i, start in enumerate(order) if name.startswith(start)), -1)


def _block_starts(names: Sequence[str]) -> dict[str, int]:
    """{block: index of its first layer}, as tick labels; blocks too short for one have none."""
    starts: dict[str, int] = {}
    for index, name in enumerate(names):
        parts = name.split(".")
        numbered = len(parts) > 1 and parts[1].isdigit()
        block = f"{parts[0].removesuffix('_blocks')} {parts[1]}" if numbered else parts[0]
        starts.setdefault(block.replace("_block", "").replace("_embedding", ""), index)
    ends = [*list(starts.values())[1:], len(names)]
    room = len(names) * MIN_TICK_SHARE
    return {n: i for (n, i), end in zip(starts.items(), ends, strict=True) if end - i >= room}
