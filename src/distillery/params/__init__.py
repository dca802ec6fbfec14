"""params.yaml: typed, complete and checked before anything heavy runs.

In: a YAML file. Out: a frozen `Params`. There are no defaults here, the defaults are the shipped
`params.yaml`: an unknown or missing key, a wrong type, a value out of range and a pair of values
that contradict each other are each one line with the file, the line and the key.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from distillery.core.errors import DistilleryError
from distillery.params.checks import require_parts
from distillery.params.control import FinetuneControl
from distillery.params.controlnet import DistillControlnet
from distillery.params.data import (
    Curate,
    Data,
    Deduplicate,
    ExtractConditions,
    Frozen,
    Ingest,
    Paths,
)
from distillery.params.guidance import DistillGuidance
from distillery.params.sections import (
    CacheTeacher,
    DistillUnet,
    Evaluate,
    Generate,
    InitStudent,
    PrepareTeacher,
    Profile,
    Report,
)


class Params(Frozen):
    """All of params.yaml: one section per stage, and what several stages share."""

    seed: Annotated[int, Field(ge=0, lt=2**31, description="seed of data, cache and generation")]
    seeds: Annotated[list[int], Field(min_length=1, description="training seeds")]
    device: Annotated[str, Field(pattern="^(cpu|cuda)$", description="cpu or cuda")]
    num_threads: Annotated[int, Field(ge=1, le=256, description="CPU threads per stage")]
    paths: Paths
    data: Data
    ingest: Ingest
    curate: Curate
    deduplicate: Deduplicate
    extract_conditions: ExtractConditions
    prepare_teacher: PrepareTeacher
    cache_teacher: CacheTeacher
    init_student: InitStudent
    distill_unet: DistillUnet
    finetune_control: FinetuneControl
    distill_controlnet: DistillControlnet
    distill_guidance: DistillGuidance
    generate: Generate
    evaluate: Evaluate
    profile: Profile
    report: Report

    @model_validator(mode="after")
    def _check_pairs(self) -> "Params":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: must be distinct")
        if self.cache_teacher.num_slots < 1:
            raise ValueError("cache_teacher.num_slots: must be at least 1")
        if self.evaluate.num_samples > self.generate.num_samples:
            raise ValueError(
                "evaluate.num_samples: more than generate.num_samples "
                f"({self.evaluate.num_samples} > {self.generate.num_samples})"
            )
        require_parts(self)
        return self


def load_params(path: Path) -> Params:
    """Read and check a params file.

    Raises DistilleryError with one line per problem: `params.yaml:12: curate.min_side_px: ...`.
    """
    values, lines = read_yaml(path)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = [_describe(problem, path, lines) for problem in error.errors()]
        raise DistilleryError("\n".join(problems)) from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[tuple, int]]:
    """The mapping in a YAML file, and the line (from 1) of every key path in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DistilleryError(f"{path}: not found; copy one from presets/") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise DistilleryError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    if not isinstance(values, dict):
        raise DistilleryError(f"{path}:1: expected a mapping of sections; copy one from presets/")
    lines: dict[tuple, int] = {}
    _collect_lines(node, (), lines, path)
    return values, lines


def _collect_lines(node: yaml.Node, key: tuple, lines: dict[tuple, int], path: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            child = (*key, name.value)
            if child in lines:
                dotted = ".".join(map(str, child))
                raise DistilleryError(f"{path}:{name.start_mark.line + 1}: {dotted}: given twice")
            lines[child] = name.start_mark.line + 1
            _collect_lines(value, child, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*key, index)] = value.start_mark.line + 1
            _collect_lines(value, (*key, index), lines, path)


def _describe(problem: dict[str, Any], path: Path, lines: dict[tuple, int]) -> str:
    key = tuple(problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if not key and ": " in message:  # a contradictory pair: the message names its key
        dotted, message = message.split(": ", 1)
        key = tuple(dotted.split("."))
    known = next((key[:n] for n in range(len(key), 0, -1) if key[:n] in lines), ())
    where = f"{path}:{lines.get(known, 1)}: {'.'.join(map(str, key))}"
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key; known here: {', '.join(_known_keys(key[:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: missing; presets/scenes.yaml shows it"
    given = problem.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{where}: {message}{shown}"


def _known_keys(section: tuple) -> list[str]:
    model: Any = Params
    for name in section:
        field = model.model_fields.get(name) if _is_model(model) else None
        model = field.annotation if field else None
    return sorted(model.model_fields) if _is_model(model) else ["see presets/scenes.yaml"]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)


def select(params: Params, keys: list[str]) -> dict[str, Any]:
    """The values at dotted `keys`, e.g. `distill_unet.variants.elr`, as plain JSON values."""
    values = params.model_dump(mode="json")
    selected = {}
    for key in keys:
        value: Any = values
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise DistilleryError(f"params: no {key!r}; {part!r} is not among {_names(value)}")
            value = value[part]
        selected[key] = value
    return selected


def _names(value: Any) -> str:
    return ", ".join(value) if isinstance(value, dict) else "nothing (not a section)"
