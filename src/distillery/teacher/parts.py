"""The components of a teacher's folder, and the files that each of them is read from.

In: a folder in diffusers layout, or of one component. Out: the files that count, or an error that
names what is missing, what lies there in its place and how to get what is needed. Not here: where
folders come from, what is in the files.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

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
INDEX = "model_index.json"
VARIANTS = (".fp16", ".bf16", ".non_ema")
# What diffusers and transformers look for: one file, or several with an index.
_WEIGHTS = re.compile(r"(diffusion_pytorch_)?model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_LFS = b"version https://git-lfs"
REMEDY = (
    "get the whole pipeline, as save_pretrained writes it, and set prepare_teacher.source to "
    "the local diffusers folder"
)


def weights_of(folder: Path) -> list[Path]:
    """The files that a component's weights are read from, and their index; no variants."""
    named = (path for path in folder.glob("*") if _WEIGHTS.fullmatch(path.name))
    return sorted(path for path in named if path.is_file())  # a pipe would keep its reader waiting


def payload(source: Path) -> Iterator[Path]:
    """The files of a teacher's known components, sorted; variants of weights are left out."""
    if (source / INDEX).is_file():
        yield source / INDEX
    for component in (*REQUIRED, *OPTIONAL):
        for folder in sorted(p for p in source.glob(component) if p.is_dir()):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix in SUFFIXES and _is_wanted(path.name):
                    yield path


def require_safetensors(file: Path) -> None:
    """Raise DamagedError for a file that is no whole safetensors file, saying what it is.

    Reads the header only.
    """
    size_bytes = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(len(_LFS))
        if head == _LFS:
            raise DamagedError(f"{file}: a Git LFS pointer, not the weights; run `git lfs pull`")
        opened.seek(8)
        length = int.from_bytes(head[:8], "little")
        try:
            header = json.loads(opened.read(min(length, size_bytes)))
            ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            what = "empty" if not head else "a web page" if head.lstrip()[:1] == b"<" else "damaged"
            raise DamagedError(f"{file}: {what}, not a safetensors file; get it again") from None
    if size_bytes != (whole := 8 + length + max(ends, default=0)):
        raise DamagedError(f"{file}: {size_bytes} bytes, its header says {whole}; get it again")


def _is_wanted(name: str) -> bool:
    return ".safetensors" not in name or _WEIGHTS.fullmatch(name) is not None


def require_components(source: Path) -> None:
    """Raise DistilleryError for the first component or file that a teacher needs and lacks."""
    names = {path.relative_to(source).as_posix() for path in payload(source)}
    for component, patterns in REQUIRED.items():
        for pattern in patterns:
            if not any(Path(name).match(f"{component}/{pattern}") for name in names):
                raise DistilleryError(_missing(source, component, pattern))


def _missing(source: Path, component: str, pattern: str) -> str:
    folder = source / component
    if not folder.is_dir():
        return f"{source}: component {component} is missing; {REMEDY}"
    if pattern == "*.safetensors":
        return no_weights(folder, pattern, REMEDY)
    return f"{folder / pattern}: not found; {REMEDY}"


def no_weights(folder: Path, pattern: str, remedy: str) -> str:
    """What lies there in place of weights, and how they are had from it."""
    if others := sorted(folder.glob("*.safetensors*")):
        variant = next((v[1:] for v in VARIANTS if v in others[0].name), None)
        how = f'with variant="{variant}" ' if variant else ""
        return (
            f"{others[0]}: the only weights there, and under a name that is not read; load the "
            f"model {how}and save it again with save_pretrained(folder), without variant"
        )
    if pickled := sorted(p for s in ("bin", "ckpt", "pt") for p in folder.glob(f"*.{s}")):
        return (
            f"{pickled[0]}: pickled weights are never loaded; save the model again "
            "with save_pretrained(folder, safe_serialization=True)"
        )
    return f"{folder / pattern}: not found; {remedy}"
