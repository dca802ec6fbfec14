"""Condition maps: making, storing and reading them. A kind is a file here and a line in `KINDS`."""

from distillery.data.conditions.blur import BLUR
from distillery.data.conditions.canny import CANNY
from distillery.data.conditions.depth import DEPTH
from distillery.data.conditions.kind import ConditionKind
from distillery.data.conditions.mask import MASK
from distillery.data.conditions.normal import NORMAL
from distillery.data.conditions.pose import POSE
from distillery.data.conditions.scribble import SCRIBBLE
from distillery.data.conditions.segmentation import SEGMENTATION
from distillery.data.conditions.sketch import SKETCH
from distillery.data.conditions.softedge import SOFTEDGE

# In the order in which models and pages name them.
_ALL = (CANNY, SKETCH, SEGMENTATION, DEPTH, NORMAL, POSE, SCRIBBLE, SOFTEDGE, BLUR, MASK)
KINDS: dict[str, ConditionKind] = {kind.name: kind for kind in _ALL}
