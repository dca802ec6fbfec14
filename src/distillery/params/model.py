"""All of params.yaml as one frozen model.

There are no defaults here, the defaults are the shipped `params.yaml`. What one section needs of
another is in `checks`; reading a file is in `load`.
"""

import contextlib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from distillery.core.errors import DistilleryError
from distillery.params.base import Frozen
from distillery.params.cache_teacher import CacheTeacher
from distillery.params.checks import require_parts
from distillery.params.curate import Curate
from distillery.params.data import Data
from distillery.params.deduplicate import Deduplicate
from distillery.params.distill_controlnet import DistillControlnet
from distillery.params.distill_guidance import DistillGuidance
from distillery.params.distill_unet import DistillUnet
from distillery.params.evaluate import Evaluate
from distillery.params.extract_conditions import ExtractConditions
from distillery.params.finetune_control import FinetuneControl
from distillery.params.generate import Generate
from distillery.params.ingest import Ingest
from distillery.params.init_student import InitStudent
from distillery.params.paths import Paths
from distillery.params.prepare_teacher import PrepareTeacher
from distillery.params.profile import Profile
from distillery.params.report import Report


class Params(Frozen):
    """All of params.yaml: one section per stage, and what several stages share."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    """Seed of the data, the teacher's cache and the generated images."""
    seeds: Annotated[list[int], Field(min_length=1)]
    """Seeds of the trainings; every student is trained once for each."""
    device: Literal["cpu", "cuda"]
    """Device that teacher and students are computed on."""
    num_threads: Annotated[int, Field(ge=1, le=256)]
    """CPU threads of each stage; never taken from the machine, as results may depend on it."""
    paths: Paths
    """Where everything lives, relative to the repository."""
    data: Data
    """What every stage must agree on about the data."""
    ingest: Ingest
    """Where images and captions come from."""
    curate: Curate
    """Which images are kept."""
    deduplicate: Deduplicate
    """What counts as a duplicate, and how images are divided."""
    extract_conditions: ExtractConditions
    """Which condition maps are made, and how."""
    prepare_teacher: PrepareTeacher
    """Which teacher the students learn from."""
    cache_teacher: CacheTeacher
    """What is recorded of the teacher's answers."""
    init_student: InitStudent
    """How low-rank students start from the teacher."""
    distill_unet: DistillUnet
    """How low-rank U-Nets are trained, and which."""
    finetune_control: FinetuneControl
    """How control adapters are trained, and which."""
    distill_controlnet: DistillControlnet
    """How small ControlNets are trained, and which."""
    distill_guidance: DistillGuidance
    """How guidance students are trained, and which."""
    generate: Generate
    """How every model draws the test prompts."""
    evaluate: Evaluate
    """What is measured of the drawn images."""
    profile: Profile
    """How latency is measured."""
    report: Report
    """What the report shows."""

    @model_validator(mode="after")
    def _check_pairs(self) -> "Params":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds: must be distinct")
        if self.evaluate.num_samples > self.generate.num_samples:
            raise ValueError(
                "evaluate.num_samples: more than generate.num_samples "
                f"({self.evaluate.num_samples} > {self.generate.num_samples})"
            )
        require_parts(self)
        return self


def select(params: Params, keys: list[str]) -> dict[str, Any]:
    """The values at dotted `keys`, e.g. `distill_unet.variants.elr`, as plain JSON values.

    A key that ends in `?` is left out where it is not there: a name that only some selections have.
    """
    values = params.model_dump(mode="json")
    selected = {}
    for key in keys:
        ignored = (DistilleryError,) if key.endswith("?") else ()
        with contextlib.suppress(*ignored):
            selected[key.rstrip("?")] = _at(values, key.rstrip("?"))
    return selected


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            raise DistilleryError(f"params: no {key!r}; {part!r} is not among {_names(values)}")
        values = values[part]
    return values


def _names(value: Any) -> str:
    return ", ".join(value) if isinstance(value, dict) else "nothing (not a section)"
