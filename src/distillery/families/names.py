"""People's names for models, and the order in which they are listed.

In: a model's name, `<family>/<variant>`. Out: labels. Only words and orders stand here.
"""

from importlib import import_module
from itertools import chain

from distillery.families import FAMILIES, Family, family_of
from distillery.families.facts import Texts

# What control adds is seen against the teacher's images of the same prompts without any map.
UNCONTROLLED = "teacher/guided"
UNCONTROLLED_LABEL = "Teacher, uncontrolled"
# The pipeline's costs and the papers' architecture, which are profiled and never sampled.
_OTHERS = {
    "teacher": "Teacher",
    "sd21/dense": "Stable Diffusion 2.1",
    "sd21/low_rank": "SD 2.1, low-rank U-Net",
}


def _labels() -> dict[str, str]:
    """Every known label: the families' own in their order, baselines, then the others."""
    own = ((f, _texts(f).labels) for f in FAMILIES.values())
    beside = ((f, _texts(f).baselines or {}) for f in FAMILIES.values())
    return {
        f"{family.name}/{variant}": text
        for family, labels in chain(own, beside)
        for variant, text in labels.items()
    } | _OTHERS


def _texts(family: Family) -> Texts:
    """A family's words, named here so that who is told of them has them in its code."""
    return import_module(f"distillery.families.{family.name}").FACTS.texts


LABELS = _labels()
_PLACES = {name: place for place, name in enumerate(LABELS)}


def label(variant: str, family: str = "") -> str:
    """A person's name for a variant, among the models of a family; a number at its end stays."""
    if variant == UNCONTROLLED and takes_maps(family):
        return UNCONTROLLED_LABEL
    if variant in LABELS:
        return LABELS[variant]
    plain, _, number = variant.rpartition("_")
    if number.isdecimal() and plain in LABELS:
        return f"{LABELS[plain]}, {number}"
    return variant.rpartition("/")[2].replace("_", " ")


def takes_maps(model: str) -> bool:
    """Whether a model, or all of a family, is drawn under condition maps."""
    family = family_of(model)
    return family is not None and family.takes_maps


def in_order(variants: list[str]) -> list[str]:
    """Teacher first, then as in `LABELS`, then others by name."""
    return sorted(variants, key=lambda name: (_PLACES.get(name, len(_PLACES)), name))
