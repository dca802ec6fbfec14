"""Whether the images that are to be read are there, before anything runs.

In: checked params, the places of their keys. Out: nothing, or an error. Where the raw shards are
made, or pulled, their source is not needed. Not here: reading it (`data.ingest`).
"""

from pathlib import Path

from distillery.core.errors import DistilleryError
from distillery.data.conditions.own import own_places
from distillery.params.model import Params
from distillery.params.read import Places

ON_DISK = ("webdataset", "parquet", "folder", "urls")


def require_source(params: Params, places: Places) -> None:
    """Raise DistilleryError, with its line, for an `ingest.path` or a folder of maps that is not
    there."""
    _require_maps(params, places)
    lost = lost_source(params, places)
    if lost and not Path(params.paths.raw).exists():
        raise DistilleryError(lost)


def lost_source(params: Params, places: Places) -> str:
    """What to say of an `ingest.path` that is not there; nothing where it is, or none is needed."""
    source, path = params.ingest.source, params.ingest.path
    if source not in ON_DISK or Path(path).exists():
        return ""
    place = places.get(("ingest", "path"), "params.yaml")
    return (
        f"{place}: ingest.path: {path} is not there; name the images' file or folder, or set "
        "ingest.source: scenes"
    )


def _require_maps(params: Params, places: Places) -> None:
    """The folders of the user's own condition maps, where those were not taken in yet."""
    if Path(params.paths.conditions).exists():
        return
    for kind, (where, name) in own_places(params.extract_conditions.kinds).items():
        if where == "folder" and not Path(name).is_dir():
            place = places.get(("extract_conditions", "kinds"), "params.yaml")
            raise DistilleryError(
                f"{place}: extract_conditions.kinds.{kind}: {name} is no folder; name the one with "
                "your maps, seen from the project's folder"
            )
