"""The code of a stage as one small file, `workflow/code/<verb>.lock`, that front ends watch.

In: a stage's verb. Out: its code now, the text of its lock, and a refusal where the two differ. A
line a definition, so that a diff tells what changed. An installed package has no `workflow/` beside
it and is not checked.
"""

import ast
import contextlib
import functools
import sys
from pathlib import Path

from distillery.core.artifacts import hash_files, hash_json, read_json, write_json
from distillery.core.code.reach import Code, Reach
from distillery.core.errors import DistilleryError

PACKAGE = Path(__file__).resolve().parents[2]
# Besides the stage itself: what turns its files into an artefact.
_ALWAYS = ("distillery.core.artifacts:write_manifest", "distillery.core.threads:set_threads")
_HEAD = "# What the computation of {verb} reaches; `python workflow/sync.py` writes this file."


def verbs(package: Path = PACKAGE) -> list[str]:
    """The stages of the package, sorted."""
    return sorted(p.stem for p in (package / "stages").glob("[!_]*.py"))


@functools.cache
def _reach(package: Path) -> Reach:
    return Reach(package)


def stage_code(verb: str, package: Path = PACKAGE) -> Code:
    """What the computation of a stage reaches, read from the source as it was first seen."""
    return _reach(package).code([f"distillery.stages.{verb}:{verb}", *_ALWAYS])


def lock_text(verb: str, code: Code) -> str:
    """What the lock of `code` says: the total, the libraries, a line a definition."""
    rows = [f"{name} {value[:12]}" for name, value in sorted(code.hashes.items())]
    head = [_HEAD.format(verb=verb), f"total {code.total}", f"libraries {' '.join(code.libraries)}"]
    return "\n".join([*head, *rows]) + "\n"


def lock_path(verb: str, package: Path = PACKAGE) -> Path:
    """Where the lock of a stage lies in the checkout that holds the package."""
    return package.parents[1] / "workflow" / "code" / f"{verb}.lock"


def current_code(verb: str) -> Code:
    """The code that a stage is about to run, which its lock must tell.

    Raises DistilleryError where it does not: front ends would not see that the code changed.
    """
    code, path = kept_codes()[verb], lock_path(verb)
    if path.parents[1].is_dir() and not _is_current(path, code):
        raise DistilleryError(
            f"{path}: not what the code is now; run `python workflow/sync.py` and start again"
        )
    return code


def kept_codes(package: Path = PACKAGE) -> dict[str, Code]:
    """The code of every stage, followed once for the same bytes of the package (1 CPU s).

    It is kept where Python keeps what it compiled; where that is not writable it is followed again.
    """
    path = package / "__pycache__" / f"stages.{sys.implementation.cache_tag}.code.json"
    sources = hash_json(hash_files(package))
    with contextlib.suppress(DistilleryError, KeyError, TypeError):
        kept = read_json(path)
        if kept["sources"] == sources:
            stages = kept["stages"].items()
            return {verb: Code(hashes, tuple(names)) for verb, (hashes, names) in stages}
    codes = {verb: stage_code(verb, package) for verb in verbs(package)}
    with contextlib.suppress(DistilleryError, OSError):
        stages = {verb: (code.hashes, code.libraries) for verb, code in codes.items()}
        write_json(path, {"sources": sources, "stages": stages})
    return codes


def _is_current(path: Path, code: Code) -> bool:
    return path.is_file() and f"\ntotal {code.total}\n" in path.read_text(encoding="utf-8")


@functools.cache
def stage_reads(verb: str) -> tuple[str, ...]:
    """The `reads` of `distillery/stages/<verb>.py`, from its `@stage(reads=[...])`."""
    (decorator,) = _stage_function(verb).decorator_list
    return tuple(*(ast.literal_eval(w.value) for w in decorator.keywords if w.arg == "reads"))


@functools.cache
def stage_inputs(verb: str) -> tuple[str, ...]:
    """The names of a stage's inputs that must be given, in the order of its arguments."""
    arguments = _stage_function(verb).args.args
    return tuple(a.arg for a in arguments if a.annotation and ast.unparse(a.annotation) == "In")


def _stage_function(verb: str) -> ast.FunctionDef:
    source = (PACKAGE / "stages" / f"{verb}.py").read_text(encoding="utf-8")
    return next(n for n in ast.parse(source).body if getattr(n, "name", None) == verb)
