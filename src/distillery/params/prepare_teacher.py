"""The section prepare_teacher of params.yaml: which teacher."""

from distillery.params.base import Frozen, Kind


class PrepareTeacher(Frozen):
    """Which teacher: `scenes` (shipped), a local diffusers folder, or a hub id."""

    source: str
    """Where the teacher comes from: scenes (shipped), a local diffusers folder or a hub id."""
    mirrors: list[str]
    """Hub ids that are tried in turn when the source cannot be had."""
    revision: str | None
    """Commit or tag of the hub id; null takes the newest."""
    controlnets: dict[Kind, str]
    """ControlNet by kind of map, a local folder or a hub id; replaces what the source has."""
    sha256: dict[str, str]
    """Expected hash by file name; a file with another one is refused, others are not checked."""
    train: bool
    """Train the scenes teacher anew from its recipe instead of taking the shipped one."""
    recipe: str
    """File with the numbers of the scenes teacher's training."""
