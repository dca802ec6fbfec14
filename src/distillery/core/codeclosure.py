"""Which files of this package a module runs on: the import closure, read from the source.

In: a module name (`distillery.stages.curate`). Out: its own file and every file of the package
that it imports, directly or not, top level or inside functions, with the data files (templates,
tables) of the packages among them. Nothing is imported or run.
`stage_reads` gives a stage's declared params keys likewise, so that front ends need no torch.
"""

import ast
import functools
from pathlib import Path

from distillery.core.artifacts import hash_file, hash_json

PACKAGE = "distillery"
_DATA_SUFFIXES = {".css", ".html", ".js", ".md", ".yaml"}
_ROOT = Path(__file__).resolve().parents[1]


def _module_file(module: str) -> Path | None:
    base = _ROOT.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _imported_modules(module: str) -> set[str]:
    """Names of package modules imported anywhere in `module`, with their parent packages."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(_module_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    own = {name for name in found if name.split(".")[0] == PACKAGE}
    parents = {name.rsplit(".", i)[0] for name in own for i in range(name.count(".") + 1)}
    return {name for name in own | parents if _module_file(name)}


@functools.cache
def import_closure(module: str) -> tuple[str, ...]:
    """Sorted paths, relative to the folder that holds the package (`distillery/stage.py`)."""
    todo, seen = [module], set()
    while todo:
        if (name := todo.pop()) not in seen:
            seen.add(name)
            todo.extend(_imported_modules(name) - seen)
    files = {_module_file(name) for name in seen} | {f for n in seen for f in _data_files(n)}
    return tuple(sorted(file.relative_to(_ROOT.parent).as_posix() for file in files))


def _data_files(module: str) -> list[Path]:
    """What a package ships beside its code, in its own folder and in folders without code."""
    init = _module_file(module)
    if init.name != "__init__.py":
        return []
    folders = [init.parent, *(p for p in init.parent.iterdir() if p.is_dir())]
    plain = [f for f in folders if f == init.parent or not list(f.glob("*.py"))]
    found = (p for folder in plain for p in folder.iterdir() if p.is_file())
    return [p for p in found if p.suffix in _DATA_SUFFIXES]


def code_version(module: str) -> str:
    """One hash over the bytes of the module's import closure."""
    return hash_json({name: hash_file(_ROOT.parent / name) for name in import_closure(module)})


@functools.cache
def stage_reads(verb: str) -> tuple[str, ...]:
    """The `reads` of `distillery/stages/<verb>.py`, from its `@stage(reads=[...])`."""
    tree = ast.parse(_module_file(f"{PACKAGE}.stages.{verb}").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "stage":
            given = {word.arg: word.value for word in node.keywords}
            return tuple(ast.literal_eval(given.get("reads") or node.args[0]))
    raise ValueError(f"distillery.stages.{verb}: no @stage(reads=[...])")
