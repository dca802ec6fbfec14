"""What a family of students is: the form that each module of `families` fills in.

In: nothing at run time. Out: `Family`, with which rules, commands, stages and the report work
without knowing any family by name. Importing needs no torch: methods that need it import it inside.
A family names its training stage and never imports it, so that loading one has no training's code.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.families.facts import Shown, Texts, facts_of

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel

    from distillery.cost.workload import Profiled
    from distillery.families.load import Folders, Student

OFFSET = "_offset"  # ends the names of the teacher's samples from other noise
MODEL, BACKBONE = "model", "backbone"  # what stages call a student and its base


@dataclass(frozen=True)
class Against:
    """Images that samples are compared with, and the suffixes of the metrics' names.

    `images`: `real`, `reference` or `offset_reference`. A suffix of None: not measured.
    """

    images: str
    distribution: str | None
    fidelity: str | None


# Images of the same noise can be compared one by one.
PLAIN = (Against("real", "", None), Against("reference", "_teacher", ""))
# Under control the real image can be too, and another noise of the teacher gives a floor above 0.
CONTROLLED = (
    Against("real", "", ""),
    Against("reference", None, "_pair"),
    Against("offset_reference", "_teacher", "_teacher"),
)


@dataclass(frozen=True)
class Prediction:
    """Which of the teacher's predictions a student's is judged against.

    `is_guided`: the guided one, by a student in as many evaluations as it needs. `has_control`: the
    one under the teacher's ControlNet.
    """

    is_guided: bool = False
    has_control: bool = False


@dataclass(frozen=True)
class Part:
    """A model that a student is loaded from besides the teacher.

    `option` is what stages call it, `key` the key of the variant's settings that names it, `family`
    whose variant that is; without, the key says so itself: `teacher` or `unet/elr`.
    """

    option: str
    key: str
    family: str = ""

    def model(self, settings: Mapping[str, Any]) -> str:
        """`teacher` or `<family>/<variant>`, as `settings` name it."""
        return f"{self.family}/{settings[self.key]}" if self.family else settings[self.key]


@dataclass(frozen=True)
class Family(ABC):
    """One method's models.

    `stage` trains it and names its section of the params; None for models that are not trained.
    `variants_key` is where the params list its variants. `builds_on` says what a student is loaded
    from, `views` which views of the teacher's cache it is trained on. `takes_maps`: every student
    is drawn under condition maps. `reference` is the teacher's variant with the images that
    samples are compared with; `{condition}` in it is the kind that ControlNets are distilled for.
    `profile_rows` begin the names of its rows in profiles at full size.
    """

    name: str
    stage: str | None
    variants_key: str | None
    builds_on: tuple[Part, ...] = ()
    views: tuple[str, ...] = ()
    takes_maps: bool = False
    reference: str = "guided"
    against: tuple[Against, ...] = PLAIN
    prediction: Prediction | None = None
    profile_rows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for what would only be missed after the last training step."""
        if not re.fullmatch("[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"family {self.name!r}: a name has lower-case letters, digits and _")
        if self.stage and not self.variants_key:
            raise ValueError(f"family {self.name}: is trained; give variants_key")

    @abstractmethod
    def load(
        self, name: str, folders: Folders, device: torch.device | str, dtype: torch.dtype
    ) -> Student:
        """The student called `name`, as it is used: frozen, in eval mode."""

    @abstractmethod
    def profiled(self, folders: Folders, teacher: UNet2DConditionModel) -> Profiled:
        """What of a student is counted and timed; `teacher` is the teacher's own U-Net."""

    def baselines(self, teacher: Path, unet: UNet2DConditionModel) -> dict[str, Profiled]:
        """What is profiled beside its students, by name: the teacher in the student's place."""
        return {}

    def owns(self, model: str) -> bool:
        """Whether `model` is one of this family."""
        return model.startswith(f"{self.name}/")

    @property
    def texts(self) -> Texts:
        """Its words."""
        return facts_of(self.name).texts

    @property
    def shown(self) -> Shown | None:
        """What the report shows of it; None without students."""
        return facts_of(self.name).shown

    @property
    def sizes(self) -> Callable[..., Any] | None:
        """How its variants are counted; None where they are not trained."""
        return facts_of(self.name).sizes

    @property
    def has_backbone(self) -> bool:
        """Whether its variants choose the U-Net that they build on."""
        return any(part.option == BACKBONE for part in self.builds_on)

    @property
    def draws_with(self) -> list[str]:
        """What its students are drawn with besides teacher and model, as `generate` calls it."""
        beside = [part.option for part in self.builds_on if part.option != MODEL]
        return [*beside, *(["conditions"] if self.takes_maps else [])]

    @property
    def judged_with(self) -> list[str]:
        """The same for `evaluate`, besides samples and reference."""
        has_offset = any(against.images == "offset_reference" for against in self.against)
        return [*(["offset_reference"] if has_offset else []), *self.draws_with]

    def compared_with(self, variant: str) -> tuple[Against, ...]:
        """What the samples of `variant` (without the family's name) are compared with."""
        return self.against

    def predicts(self, variant: str) -> Prediction | None:
        """What its prediction is judged against; None where no teacher has one like it."""
        return self.prediction

    def main_student(self, variants: list[str]) -> str | None:
        """The student that stands for the family: the first known one, or any."""
        own = [variant for variant in variants if self.owns(variant)]
        return next((variant for variant in self.shown.students if variant in own), (*own, None)[0])
