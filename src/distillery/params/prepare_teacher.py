"""The section prepare_teacher of params.yaml: which teacher."""

from distillery.params.base import Frozen, Kind


class PrepareTeacher(Frozen):
    """Which teacher: `scenes` (shipped), a local diffusers folder, or a hub id."""

    source: str
    """scenes (shipped), a local diffusers folder or a hub id"""
    mirrors: list[str]
    """hub ids to try in turn when the first fails"""
    revision: str | None
    """commit or tag of the hub id"""
    controlnets: dict[Kind, str]
    """ControlNet by kind of map: a local folder or a hub id; replaces what the source has"""
    sha256: dict[str, str]
    """expected hash by file; others are not checked"""
    train: bool
    """train the scenes teacher anew"""
    recipe: str
    """how it is trained"""
