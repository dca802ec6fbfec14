"""All that a family of students is, one module or package each; `FAMILIES` holds them by name.

In: nothing. Out: the registry that rules, params, commands, stages and the report iterate over, in
the order of the report's page; the teacher's own variants come first. No torch is imported here.
"""

from collections.abc import Mapping

from distillery.families.base import OFFSET, Family
from distillery.families.control import CONTROL
from distillery.families.controlnet import CONTROLNET
from distillery.families.facts import complete
from distillery.families.guidance import GUIDANCE
from distillery.families.teacher import TEACHER
from distillery.families.unet import UNET
from distillery.families.whole import WHOLE

__all__ = ["FAMILIES", "OFFSET", "STUDENTS", "TRAINED", "Family", "by_name", "family_of"]


def by_name(*families: Family) -> dict[str, Family]:
    """{name: family}; raises ValueError for two of one name."""
    named = {family.name: family for family in families}
    if len(named) != len(families):
        raise ValueError("two families of one name")
    return named


FAMILIES: Mapping[str, Family] = by_name(
    TEACHER,
    WHOLE,
    UNET,
    CONTROL,
    CONTROLNET,
    GUIDANCE,
)
complete(FAMILIES)
# Those with students, and of them those that a stage of their own trains.
STUDENTS = {name: family for name, family in FAMILIES.items() if family.shown}
TRAINED = {name: family for name, family in FAMILIES.items() if family.stage}


def family_of(model: str) -> Family | None:
    """The family of `<family>/<variant>`; None for an unknown one."""
    return FAMILIES.get(model.partition("/")[0])
