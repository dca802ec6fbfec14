"""What a model folder says of itself: README.md for people, `student.json` for programs.

In: what all variants of a training have in common; a variant's settings and seeds. Out: the files.
Not here: the card's words (`card`), the form of `student.json` (`description`), metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distillery.core.artifacts import content_of
from distillery.families.card import CARD, CachedData, readme
from distillery.families.description import (
    Description,
    Sampling,
    base_of,
    write_description,
)
from distillery.models.load import seed_folder
from distillery.teacher.cache.read import TeacherCache


@dataclass(frozen=True)
class About:
    """What all variants of a training have in common.

    `source` is the teacher's name, `builds_on` the folders that a student needs: `teacher`, and
    `backbone` where it is trained on one. `condition_kinds` are the maps that it takes.
    """

    family: str
    source: str
    cache: TeacherCache
    builds_on: Mapping[str, Path]
    condition_kinds: Sequence[str] = ()
    sampling: Sampling = field(default_factory=Sampling)

    def write(
        self, folder: Path, variant: str, settings: Mapping[str, Any], seeds: Sequence[int]
    ) -> None:
        """Write `folder/README.md`, and `student.json` there and beside each further seed's."""
        text = readme(self.family, variant, self.source, self._data(), settings, seeds)
        (folder / CARD).write_text(text, encoding="utf-8")
        for place in (seed_folder(folder, seed, seeds) for seed in seeds):
            write_description(place, self._description(place, variant))

    def _description(self, folder: Path, variant: str) -> Description:
        bases = {name: base_of(path, folder) for name, path in self.builds_on.items()}
        kinds = list(self.condition_kinds)
        return Description(self.family, variant, bases, kinds, self.sampling)

    def _data(self) -> CachedData:
        meta, num_slots = self.cache.meta, self.cache.meta.num_slots
        num_train, num_val = (len(self.cache.samples(s)) // num_slots for s in ("train", "val"))
        content = content_of(self.cache.base)
        return CachedData(num_train, num_val, num_slots, meta.resolution_px, content)
