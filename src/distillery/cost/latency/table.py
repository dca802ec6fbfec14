"""A latency table: seconds of every distinct layer in each form, of blocks and of whole models.

In: JSON files that `distillery latency` wrote, or seconds from `measure` or `roofline`. Out: the
latency of a layer at a rank, of a block's remainder, of a whole plan. Not here: clocks.

A plan's latency is the dense model's, less the dense time of every layer that it changes, plus the
time of the form that it has instead, less the remainder (norms, activations, attention products) of
every block that it removes. What no form changes is never modelled: it is in the dense time.

Parts that are timed alone do not quite add up to the whole: their data is in a cache, or the
machine was busier meanwhile. `LatencyTable.balanced` makes them.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distillery.core.artifacts import read_json
from distillery.core.errors import DistilleryError
from distillery.cost.latency.units import Anatomy

DENSE = "dense"
BASES = ("measured", "predicted")
_REMEDY = "write it with `distillery latency`"
Spread = Mapping[str, Any]  # {"median_s": s, "quartiles_s": [s, s]}; predictions have no quartiles


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of one batch on one device; `layers` by key and form, `blocks`, `models` by key.

    `basis` is `measured` or `predicted`, `facts` say on what, when and how.
    """

    name: str
    basis: str
    multiple_of: int
    layers: Mapping[str, Mapping[str, Spread]]
    blocks: Mapping[str, Spread]
    models: Mapping[str, Spread]
    facts: Mapping[str, Any]

    def layer_s(self, key: str, rank: int | None = None) -> float:
        """Seconds of a layer; between timed ranks on a straight line, beyond them the last one.

        Raises DistilleryError for a layer that was not timed.
        """
        forms = self.layers.get(key) or _missing(self, "layer", key)
        if rank is None:
            return forms[DENSE]["median_s"]
        ranks = sorted(int(form) for form in forms if form != DENSE)
        if not ranks:
            raise DistilleryError(f"table {self.name}: layer {key} was timed in no low-rank form")
        return float(np.interp(rank, ranks, [forms[str(r)]["median_s"] for r in ranks]))

    def block_s(self, key: str) -> float:
        """Seconds of a whole dense block."""
        return (self.blocks.get(key) or _missing(self, "block", key))["median_s"]

    def model_s(self, key: str) -> float:
        """Seconds of a whole dense model."""
        return (self.models.get(key) or _missing(self, "model", key))["median_s"]

    def balanced(self, parts: Anatomy) -> "LatencyTable":
        """The same with all parts as much longer or shorter as makes them add up to the model.

        Blocks, and the layers outside of them, are then all of it; what a form takes in relation to
        another, and the model's own time, stay as they were measured.
        """
        inside = {name for block in parts.blocks for name in parts.layers_of(block)}
        whole = sum(self.block_s(unit.key) for unit in parts.blocks.values()) + sum(
            self.layer_s(unit.key) for name, unit in parts.layers.items() if name not in inside
        )
        factor = self.model_s(parts.model.key) / whole
        layers = {key: _times(forms, factor) for key, forms in self.layers.items()}
        return replace(self, layers=layers, blocks=_times(self.blocks, factor))

    def covers(self, parts: Anatomy) -> bool:
        """Whether every layer, block and the whole of a model were timed."""
        return (
            parts.model.key in self.models
            and all(unit.key in self.layers for unit in parts.layers.values())
            and all(unit.key in self.blocks for unit in parts.blocks.values())
        )


def _times(spreads: Mapping[str, Spread], factor: float) -> dict[str, Spread]:
    return {key: {"median_s": factor * value["median_s"]} for key, value in spreads.items()}


def _missing(table: LatencyTable, kind: str, key: str) -> Any:
    raise DistilleryError(
        f"table {table.name}: no {kind} {key}; time this architecture with `distillery latency`"
    )


def remainder_s(table: LatencyTable, parts: Anatomy, block: str) -> float:
    """Seconds of a block that belong to none of its layers; at least 0."""
    inside = sum(table.layer_s(parts.layers[name].key) for name in parts.layers_of(block))
    return max(0.0, table.block_s(parts.blocks[block].key) - inside)


def plan_s(
    table: LatencyTable,
    parts: Anatomy,
    ranks: Mapping[str, int],
    removed: Collection[str] = (),
) -> float:
    """Predicted seconds of one evaluation of a batch with these ranks and removed blocks."""
    gone = {name for block in removed for name in parts.layers_gone_with(block)}
    seconds = table.model_s(parts.model.key)
    for name, unit in parts.layers.items():
        if name in gone:
            seconds -= table.layer_s(unit.key)
        elif name in ranks:
            seconds += table.layer_s(unit.key, ranks[name]) - table.layer_s(unit.key)
    return seconds - sum(remainder_s(table, parts, block) for block in removed)


def write_form(tables: Iterable[LatencyTable]) -> dict[str, Any]:
    """What a file of tables holds."""
    return {"tables": [_plain(table) for table in tables]}


def _plain(table: LatencyTable) -> dict[str, Any]:
    plain = asdict(table)
    return {**plain.pop("facts"), **plain}


def read_tables(path: Path) -> list[LatencyTable]:
    """The tables of a file, or of every JSON file in a folder; none where there is no such path.

    Raises DistilleryError for a file that holds something else.
    """
    if path.is_dir():
        return [table for file in sorted(path.glob("*.json")) for table in read_tables(file)]
    if not path.is_file():
        return []
    try:
        tables = [_table(entry) for entry in read_json(path, remedy=_REMEDY)["tables"]]
        for table in tables:
            _check(table)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DistilleryError(
            f"{path}: not a file of latency tables ({error}); {_REMEDY}"
        ) from error
    return tables


def _table(entry: Mapping[str, Any]) -> LatencyTable:
    own = ("name", "basis", "multiple_of", "layers", "blocks", "models")
    facts = {key: value for key, value in entry.items() if key not in own}
    return LatencyTable(**{key: entry[key] for key in own}, facts=facts)


def _check(table: LatencyTable) -> None:
    """ValueError for a table that was damaged or edited: no name, time, rank or multiple."""
    if not isinstance(table.name, str) or table.basis not in BASES:
        raise ValueError(
            f"{table.name}: name {table.name!r} and basis {table.basis!r}, which is one of "
            f"{', '.join(BASES)}"
        )
    if not isinstance(table.multiple_of, int) or table.multiple_of < 1:
        raise ValueError(
            f"{table.name}: multiple_of {table.multiple_of!r} is no whole number from 1"
        )
    spreads = {f"blocks.{key}": spread for key, spread in table.blocks.items()}
    spreads |= {f"models.{key}": spread for key, spread in table.models.items()}
    for key, forms in table.layers.items():
        spreads |= {f"layers.{key}.{form}": spread for form, spread in forms.items()}
        if DENSE not in forms or not all(form == DENSE or form.isdigit() for form in forms):
            raise ValueError(f"{table.name}: layers.{key}: forms are {DENSE} and ranks")
    for place, spread in spreads.items():
        seconds = spread.get("median_s")
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 < seconds < math.inf:
            raise ValueError(f"{table.name}: {place}: median_s {seconds!r} is no time above 0")
    _check_parts(table, spreads)


def _check_parts(table: LatencyTable, spreads: Mapping[str, Spread]) -> None:
    """ValueError for a dense layer or block that takes longer than any whole model."""
    most = max((spread["median_s"] for spread in table.models.values()), default=math.inf)
    for place, spread in spreads.items():
        is_whole = place.startswith("blocks.") or place.endswith(f".{DENSE}")
        if is_whole and spread["median_s"] > most:
            raise ValueError(
                f"{table.name}: {place}: {spread['median_s']} s, the whole model takes {most} s"
            )
