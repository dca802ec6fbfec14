"""Where a teacher comes from: a folder or the hub.

In: a diffusers folder or a hub id with mirrors. Out: a local folder, or an error that says which
file could not be had, from where, and how to give a local copy. No weights are loaded here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillery.core.errors import DistilleryError, kind_and_reason
from distillery.teacher.parts import (
    INDEX,
    OPTIONAL,
    REMEDY,
    REQUIRED,
    SUFFIXES,
    VARIANTS,
    no_weights,
    require_components,
    weights_of,
)

_HUB = re.compile(
    r"^(?P<endpoint>https://[^/@\s]+/)?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$"
)


@dataclass(frozen=True)
class HubSource:
    """`[https://endpoint/]organisation/name[@revision]`; no endpoint: the default hub."""

    repo: str
    revision: str | None
    endpoint: str | None

    @classmethod
    def parse(
        cls, text: str, revision: str | None = None, key: str = "prepare_teacher.source"
    ) -> "HubSource":
        """Raises DistilleryError, naming `key`, if `text` is neither a folder nor a hub id."""
        if not (match := _HUB.match(text)):
            raise DistilleryError(
                f"{key}: {text!r} is no folder here and no hub id; give the path of a diffusers "
                "folder or organisation/name (for the teacher also scenes)"
            )
        endpoint = match["endpoint"]
        return cls(match["repo"], match["revision"] or revision, endpoint and endpoint.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.endpoint or 'hub'}: {self.repo}@{self.revision or 'main'}"


def find_teacher(source: str, *, mirrors: Sequence[str], revision: str | None) -> Path:
    """The local folder `source`, or a folder downloaded from it or the first mirror that has it.

    `revision` is that of `source`; a mirror has its own behind `@`. Downloads are kept and resumed
    by huggingface_hub, whose HF_HOME and HF_HUB_OFFLINE hold. Raises DistilleryError naming what
    failed at every place.
    """
    _refuse_file(source, "StableDiffusionPipeline", "prepare_teacher.source")
    if Path(source).is_dir():
        _refuse_cache(Path(source), "prepare_teacher.source")
        return Path(source)
    places = [HubSource.parse(source, revision), *map(HubSource.parse, mirrors)]
    components = [*REQUIRED, *OPTIONAL]
    allowed = [f"{component}/*{suffix}" for component in components for suffix in SUFFIXES]
    wanted = ", ".join(f"{name}/{file}" for name, files in REQUIRED.items() for file in files)
    allowed.append(INDEX)
    what = f"prepare_teacher.source {source}: could not get {wanted}"
    return _first_download(what, places, allowed, require_components, REMEDY)


def find_controlnet(kind: str, source: str) -> Path:
    """The local diffusers folder of a ControlNet, or one downloaded from the hub id `source`."""
    key = f"prepare_teacher.controlnets.{kind}"
    remedy = f"download it elsewhere and set {key} to the local folder"
    files = ["config.json", "*.safetensors", "*.safetensors.index.json"]

    def require_files(folder: Path) -> None:
        if not (folder / "config.json").is_file():
            raise DistilleryError(f"{folder / 'config.json'}: not found; {remedy}")
        if not any(file.suffix == ".safetensors" for file in weights_of(folder)):
            raise DistilleryError(no_weights(folder, "*.safetensors", remedy))

    _refuse_file(source, "ControlNetModel", key)
    if Path(source).is_dir():
        _refuse_cache(Path(source), key)
        require_files(Path(source))
        return Path(source)
    what = f"{key} {source}: could not get {', '.join(files)}"
    return _first_download(what, [HubSource.parse(source, key=key)], files, require_files, remedy)


def _refuse_file(source: str, kind: str, key: str) -> None:
    if Path(source).is_file():
        raise DistilleryError(
            f"{source}: a single file; save it as a folder with diffusers, {kind}"
            f".from_single_file(FILE).save_pretrained(FOLDER), and give {key} that"
        )


def _refuse_cache(folder: Path, key: str) -> None:
    """A folder of the hub's download cache, which holds the model further below."""
    if found := sorted(p for p in folder.glob("snapshots/*") if p.is_dir()):
        raise DistilleryError(f"{folder}: a download cache; set {key} to {found[-1]}")


def _first_download(
    what: str,
    places: Sequence[HubSource],
    allowed: Sequence[str],
    require: Callable[[Path], None],
    remedy: str,
) -> Path:
    """The allowed files from the first place where `require` finds all; else an error naming every
    failure."""
    from huggingface_hub import snapshot_download

    failures = []
    for place in places:
        try:
            folder = snapshot_download(
                place.repo,
                revision=place.revision,
                endpoint=place.endpoint,
                allow_patterns=list(allowed),
                ignore_patterns=[f"*{variant}{end}*" for variant in VARIANTS for end in ".-"],
            )
            require(Path(folder))
            return Path(folder)
        except Exception as error:  # whatever one place fails with, the next one is tried
            failures.append(f"{place}: {kind_and_reason(error)}")
    raise DistilleryError(f"{what} ({'; '.join(failures)}); {remedy}")
