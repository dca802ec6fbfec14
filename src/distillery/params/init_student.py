"""The section init_student of params.yaml: how low-rank students start."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from distillery.params.base import AboveZero, Frozen, Name, PathName, Positive

Method = Literal["svd", "balanced", "data_aware", "planned"]
Criterion = Literal["latency", "uniform", "parameters", "removal", "random_removal"]


def _table_name(text: str) -> str:
    """A table's name or file; hours pass before the table itself is looked for."""
    if not re.fullmatch(r".+-(fp32|fp16|bf16)-b[1-9]\d*|.+\.json", text):
        raise ValueError("a table is named <device>-<dtype>-b<batch>, such as cpu-fp32-b4")
    return text


TableName = Annotated[str, AfterValidator(_table_name)]


class Rank(Frozen):
    """How ranks are chosen; `value` is the ratio, rank, energy, parameters or share of latency."""

    rule: Literal["ratio", "fixed", "energy", "target_total", "spectrum", "latency", "file"]
    """How ranks are chosen; spectrum plans for parameters, latency for a device, with removals."""
    value: AboveZero
    """Share of the full rank, rank, share of energy, parameters in total or share of latency."""
    file: str | None
    """Plan of rule file, written by `distillery ranks --out`; null with other rules."""
    device: TableName | None
    """Latency table of rule latency, <device>-<dtype>-b<batch>; null with other rules."""
    multiple_of: Positive | None
    """Ranks are multiples of it; null leaves them as the rule gives them, or as the table says."""
    keep_dense: list[str]
    """Names of layers that are not decomposed."""

    @model_validator(mode="after")
    def _check(self) -> "Rank":
        if (self.rule == "file") != (self.file is not None):
            raise ValueError("file: belongs to rule file, and only there; set both or neither")
        if (self.rule == "latency") != (self.device is not None):
            raise ValueError("device: belongs to rule latency, and only there; set both or neither")
        if self.rule == "latency" and self.value > 1:
            raise ValueError("value: a share of the dense latency is at most 1 with rule latency")
        return self


class Plan(Frozen):
    """A start within a share of the teacher's latency, by name; `init` of a variant may name it."""

    method: Literal["svd", "balanced", "data_aware"]
    """How the layers that it factorises are decomposed."""
    by: Criterion
    """What chooses it; latency plans for the device, the others are what that is compared with."""
    share: Annotated[float, Field(gt=0, le=1)]
    """Of the dense U-Net's latency, by the table."""
    device: TableName
    """Latency table that counts, <device>-<dtype>-b<batch>."""


class InitStudent(Frozen):
    """Decompositions of the teacher's U-Net."""

    methods: Annotated[list[Method], Field(min_length=1)]
    """Decompositions to make, svd among them; planned spreads parameters by layers' need."""
    rank: Rank
    """How the ranks of the decomposed layers are chosen."""
    plans: dict[Name, Plan]
    """Further starts by name, each planned for a latency; other settings are those of rank."""
    tables: PathName
    """File or folder of latency tables that rule latency and plans count by."""
    num_moment_samples: Positive
    """Recorded samples that data_aware and planned measure activations on."""

    @model_validator(mode="after")
    def _check(self) -> "InitStudent":
        reserved = {"random", *get_args(Method)}
        if taken := sorted(reserved & set(self.plans)):
            raise ValueError(f"plans.{taken[0]}: is the name of a method; give the plan another")
        return self
