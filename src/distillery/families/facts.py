"""What people are told about a family: its texts, what the report shows of it, how large it is.

In: words, names of metrics and models. Out: the parts of a family that no model depends on. They
stand beside the `Family`, not in it, so that only the report has them in its code and a reworded
label redraws no image. Nothing here needs torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

__computes__ = False  # who is told of them names them: `names`

SAME_NOISE = "PSNR, SSIM and LPIPS compare with the teacher's image of the same prompt and noise."


@dataclass(frozen=True)
class Texts:
    """The words of a family.

    `labels` are people's names for its known variants, in the order of tables and figures; others
    follow, called as params.yaml calls them. `baselines` name models that are profiled beside them.
    `snippet(model, settings)` is Python that draws with the model `models/<model>`, whose
    `training.json` has those settings. `compared` is the note under its measurements.
    """

    title: str
    lede: str
    menu: str
    labels: Mapping[str, str]
    snippet: Callable[[str, Mapping[str, Any]], str]
    baselines: Mapping[str, str] | None = None
    compared: str = SAME_NOISE

    def __post_init__(self) -> None:
        """Raise ValueError for an empty text, before anything runs."""
        _require(self, "title", "lede", "menu", "compared", "labels")


@dataclass(frozen=True)
class Shown:
    """What the report shows of a family.

    `teacher` is what its students are compared with, in costs `cost_baseline` where there is one.
    The first known of `students` stands for the family. `qualities` and `costs` come in order of
    how much they say. `tables` are the papers'; `beside` are other families' models in its tables,
    `strip` those before its own images, `hero` the first screen's where it comes first.
    """

    teacher: str
    students: tuple[str, ...]
    qualities: tuple[str, ...]
    costs: tuple[str, ...]
    cost_baseline: str = ""
    tables: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    strip: tuple[str, ...] = ()
    hero: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where something is left empty, before anything runs."""
        _require(self, "teacher", "students", "qualities", "costs")


@dataclass(frozen=True)
class Facts:
    """All of them: `FACTS` of the family's module. Only families with students have `shown`.

    `sizes(name, variant, section, known)` counts a variant before it is trained: a `sizes.Sized`
    from plain settings, the variant's, its whole section's, and what is known of the teacher
    (`sizes.Known`).
    """

    texts: Texts
    shown: Shown | None = None
    sizes: Callable[..., Any] | None = None


def facts_of(family: str) -> Facts:
    """The facts of a family, wherever it is defined below `distillery.families`."""
    return import_module(f"distillery.families.{family}").FACTS


def complete(families: Mapping[str, Any]) -> None:
    """Raise ValueError for a family that would be missed only after its last training step."""
    for name, family in families.items():
        try:
            facts = facts_of(name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"family {name}: distillery.families.{name} lacks FACTS") from error
        if family.stage and not (facts.shown and facts.sizes):
            raise ValueError(f"family {name}: is trained; give its FACTS shown and sizes")
        own = facts.shown.students if facts.shown else ()
        if foreign := [student for student in own if not family.owns(student)]:
            raise ValueError(f"family {name}: {foreign[0]} in shown.students is no own one")


def _require(part: Any, *names: str) -> None:
    empty = [f.name for f in fields(part) if f.name in names and not getattr(part, f.name)]
    if empty:
        raise ValueError(f"{type(part).__name__}: {empty[0]} is empty")
