"""What a kind of condition map is.

In: nothing. Out: `ConditionKind`, of which every kind has one in a file of its own; the package
lists them in `KINDS`. Neither torch nor OpenCV is imported before a map is drawn, because the
params, the workflow and the report look at the list. Not here: reading and writing maps.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillery.core.errors import DistilleryError

if TYPE_CHECKING:
    import numpy as np

    from distillery.data.scenes.draw import Scene

    Draw = Callable[[np.ndarray], np.ndarray]

BUILTIN = "builtin"


@dataclass(frozen=True)
class ConditionKind:
    """How maps of one kind are made, kept, compared and called.

    A map is uint8 (H, W) or (H, W, 3) in [0, 255], as large as its image; networks are given
    `num_channels` of it in [0, 1].
    """

    name: str
    """in params, folders and variants"""
    words: str
    """in the report: "Canny edges" """
    form: str
    """what a proper map looks like, for errors: "edge maps are white on black" """
    draw: Draw | None
    """the built-in map of an RGB image uint8 (H, W, 3); None: there is none for any image"""
    group: str | None = None
    """of metrics, by which an image is compared with its map; None: by none"""
    open_drawer: Callable[[Mapping[str, Any], str], Draw] | None = None
    """`draw` as the settings of `extract_conditions` want it, on a device: other thresholds, a
    learned annotator from a folder; None: always `draw`"""
    exact: Callable[[Mapping[str, Any]], np.ndarray | None] | None = None
    """the map of a curated row that its source brought along, None where it brought none; goes
    before the built-in one"""
    of_labels: Callable[[np.ndarray], np.ndarray] | None = None
    """the map of a scene's class ids (H, W), where it follows from them; None: `draw`"""
    num_channels: int = 3
    """of a network's hint"""

    def open(self, settings: Mapping[str, Any], device: str = "cpu") -> Draw:
        """The function that draws maps under the settings of `extract_conditions`.

        Raises DistilleryError where a learned annotator can't be had; the function raises it
        where no annotator is named and nothing built in draws such a map.
        """
        if self.is_learned(settings) or self.draw is not None:
            return self.open_drawer(settings, device) if self.open_drawer else self.draw
        return self._refuse

    def is_learned(self, settings: Mapping[str, Any]) -> bool:
        """Whether the settings name a learned annotator."""
        return settings.get(self.name, BUILTIN) not in (BUILTIN, None)

    def takes_exact(self, settings: Mapping[str, Any]) -> bool:
        """Whether the source's own maps go first: unless a learned annotator is named."""
        return self.exact is not None and not self.is_learned(settings)

    def of(self, scene: Scene) -> np.ndarray:
        """The map of a drawn scene."""
        return self.of_labels(scene.segmentation) if self.of_labels else self.draw(scene.image)

    def no_drawer(self) -> str:
        """What a user without maps of this kind can do, in one line."""
        return (
            f"nothing built in draws {self.name} maps of such images; set extract_conditions."
            f"{self.name} to a model (a local folder or a hub id), or give your own maps: "
            f"extract_conditions.kinds: {{{self.name}: {{from: folder maps/{self.name}}}}}"
        )

    def _refuse(self, image: np.ndarray) -> np.ndarray:
        raise DistilleryError(f"{self.name}: {self.no_drawer()}")


def exact_by_labels(
    of_labels: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Mapping[str, Any]], np.ndarray | None]:
    """`exact` by the class ids uint8 (H, W) that a curated row's source brought along."""

    def exact(row: Mapping[str, Any]) -> np.ndarray | None:
        import numpy as np
        from PIL import Image

        if not row["segmentation"]:
            return None
        labels = Image.open(io.BytesIO(row["segmentation"]))
        return of_labels(np.asarray(labels)) if labels.mode == "L" else None

    return exact
