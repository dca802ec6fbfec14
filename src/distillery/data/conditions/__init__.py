"""Condition maps: making, storing and reading them. A kind is a file here and a line in `KINDS`."""

from distillery.data.conditions.canny import CANNY
from distillery.data.conditions.kind import ConditionKind
from distillery.data.conditions.segmentation import SEGMENTATION
from distillery.data.conditions.sketch import SKETCH

# In the order in which models and pages name them.
KINDS: dict[str, ConditionKind] = {kind.name: kind for kind in (CANNY, SKETCH, SEGMENTATION)}
