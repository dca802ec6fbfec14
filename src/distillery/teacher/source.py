"""Where a teacher comes from: a folder or the hub, checked before anything uses it.

In: a diffusers folder or a hub id with mirrors and expected sha256. Out: a copy of what a teacher
needs (JSON, text and safetensors of known components, nothing else), or an error that says which
file could not be had, from where, and how to give a local copy. No weights are loaded here.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distillery.core.artifacts import hash_file
from distillery.core.errors import DamagedError, DistilleryError

REQUIRED = {
    "tokenizer": ("tokenizer_config.json",),
    "text_encoder": ("config.json", "*.safetensors"),
    "vae": ("config.json", "*.safetensors"),
    "unet": ("config.json", "*.safetensors"),
    "scheduler": ("scheduler_config.json",),
}
OPTIONAL = ("controlnet_*", "clip")
SUFFIXES = (".json", ".txt", ".safetensors")
VARIANTS = (".fp16.", ".bf16.", ".non_ema.")
_HUB = re.compile(
    r"^(?P<endpoint>https://[^/@\s]+/)?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$"
)
_REMEDY = "download it elsewhere and set prepare_teacher.source to the local diffusers folder"


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
    if Path(source).is_dir():
        return Path(source)
    places = [HubSource.parse(source, revision), *map(HubSource.parse, mirrors)]
    components = [*REQUIRED, *OPTIONAL]
    allowed = [f"{component}/*{suffix}" for component in components for suffix in SUFFIXES]
    wanted = ", ".join(f"{name}/{file}" for name, files in REQUIRED.items() for file in files)
    allowed.append("model_index.json")
    what = f"prepare_teacher.source {source}: could not get {wanted}"
    return _first_download(what, places, allowed, _require_components, _REMEDY)


def find_controlnet(kind: str, source: str) -> Path:
    """The local diffusers folder of a ControlNet, or one downloaded from the hub id `source`."""
    key = f"prepare_teacher.controlnets.{kind}"
    remedy = f"download it elsewhere and set {key} to the local folder"
    files = ["config.json", "*.safetensors"]

    def require_files(folder: Path) -> None:
        for pattern in files:
            if not list(folder.glob(pattern)):
                raise DistilleryError(f"{folder / pattern}: not found; {remedy}")

    if Path(source).is_dir():
        require_files(Path(source))
        return Path(source)
    what = f"{key} {source}: could not get {', '.join(files)}"
    return _first_download(what, [HubSource.parse(source, key=key)], files, require_files, remedy)


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
                ignore_patterns=[f"*{variant}*" for variant in VARIANTS],
            )
            require(Path(folder))
            return Path(folder)
        except Exception as error:  # whatever one place fails with, the next one is tried
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
            failures.append(f"{place}: {type(error).__name__}: {first_line}")
    raise DistilleryError(f"{what} ({'; '.join(failures)}); {remedy}")


def copy_teacher(source: Path, target: Path, sha256: Mapping[str, str]) -> None:
    """Copy a teacher's components to the new folder `target` and check them.

    `sha256` maps relative names to expected hashes. Raises DistilleryError for a missing component
    or file, and DamagedError for a hash that differs.
    """
    _require_components(source)
    for path in _payload(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for name, expected in sha256.items():
        if not (target / name).is_file():
            raise DistilleryError(
                f"{source / name}: not found, but prepare_teacher.sha256 lists it"
            )
        if (actual := hash_file(target / name)) != expected.lower():
            raise DamagedError(
                f"{source / name}: sha256 is {actual}, expected {expected}; the file is damaged or "
                "another version: remove it and run again, or correct prepare_teacher.sha256"
            )


def replace_controlnet(kind: str, source: Path, teacher: Path) -> None:
    """Copy config and safetensors of a ControlNet into a teacher's folder, as `controlnet_<kind>`.

    One that came with the teacher is replaced.
    """
    target = teacher / f"controlnet_{kind}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in sorted([source / "config.json", *source.glob("*.safetensors")]):
        if not any(variant in path.name for variant in VARIANTS):
            shutil.copyfile(path, target / path.name)


def _payload(source: Path) -> Iterator[Path]:
    """The files of a teacher's known components, sorted; variants of weights are left out."""
    if (source / "model_index.json").is_file():
        yield source / "model_index.json"
    for component in (*REQUIRED, *OPTIONAL):
        for folder in sorted(p for p in source.glob(component) if p.is_dir()):
            for path in sorted(folder.rglob("*")):
                is_variant = any(variant in path.name for variant in VARIANTS)
                if path.is_file() and path.suffix in SUFFIXES and not is_variant:
                    yield path


def _require_components(source: Path) -> None:
    names = {path.relative_to(source).as_posix() for path in _payload(source)}
    for component, patterns in REQUIRED.items():
        for pattern in patterns:
            if not any(Path(name).match(f"{component}/{pattern}") for name in names):
                raise DistilleryError(_missing(source, component, pattern))


def _missing(source: Path, component: str, pattern: str) -> str:
    folder = source / component
    if not folder.is_dir():
        return f"{source}: component {component} is missing; {_REMEDY}"
    pickled = sorted(p.name for s in ("bin", "ckpt", "pt") for p in folder.glob(f"*.{s}"))
    if pickled and pattern == "*.safetensors":
        return (
            f"{folder / pickled[0]}: pickled weights are never loaded; save the pipeline again "
            "with save_pretrained(folder, safe_serialization=True)"
        )
    return f"{folder / pattern}: not found; {_REMEDY}"
