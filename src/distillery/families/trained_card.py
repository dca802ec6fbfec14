"""The README.md of a model folder, from what its training knows.

In: the family, the teacher's source, the teacher's cache; a variant's settings and seeds. Out: the
file. Not here: its words (`model_card`), metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.core.artifacts import content_of
from distillery.families.card import CARD, CachedData, readme
from distillery.teacher.cache.files import BASE
from distillery.teacher.cache.read import TeacherCache


@dataclass(frozen=True)
class Card:
    """What all variants of a training have in common; `source` is `prepare_teacher.source`."""

    family: str
    source: str
    cache: TeacherCache

    def write(
        self, folder: Path, variant: str, settings: Mapping[str, Any], seeds: Sequence[int]
    ) -> None:
        """Write `folder/README.md`."""
        text = readme(self.family, variant, self.source, self._data(), settings, seeds)
        (folder / CARD).write_text(text, encoding="utf-8")

    def _data(self) -> CachedData:
        meta, num_slots = self.cache.meta, self.cache.meta.num_slots
        num_train, num_val = (len(self.cache.samples(s)) // num_slots for s in ("train", "val"))
        content = content_of(self.cache.root / BASE)
        return CachedData(num_train, num_val, num_slots, meta.resolution_px, content)
