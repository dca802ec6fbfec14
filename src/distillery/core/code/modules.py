"""The modules of a package as their source says: what each binds, and what a name stands for.

In: the folder of a package. Out: statements by name, and resolved names. Nothing is imported or
run. Not here: what a statement needs, and what is reached.
"""

import ast
import functools
from dataclasses import dataclass, field
from pathlib import Path

from distillery.core.code.scopes import FUNCTIONS, Chain, chain_of, import_targets, is_guarded

STATEMENTS = ""  # the name of a module's statements that define nothing
_DATA_SUFFIXES = {".css", ".html", ".js", ".json", ".md", ".yaml"}


@dataclass(frozen=True)
class Target:
    """What a name stands for: a definition in a module, a module (`name` None), or a library."""

    module: str
    name: str | None = None
    is_library: bool = False

    def __str__(self) -> str:
        return f"{self.module}:{self.name}" if self.name is not None else self.module


@dataclass
class Module:
    """One source file: its definitions and other statements, its imports, and its data files."""

    name: str
    path: Path
    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    computes: bool = True

    @property
    def is_package(self) -> bool:
        """Whether it is an `__init__.py`."""
        return self.path.name == "__init__.py"

    @property
    def package(self) -> str:
        """What relative imports start from."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    def add(self, node: ast.stmt) -> None:
        """Take in a top-level statement."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.update(import_targets(node, self.package))
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            self.definitions.setdefault(node.name, []).append(node)
        elif names := _assigned(node):
            self.computes = self.computes and not _says_no(node, names)
            for name in names:
                self.definitions.setdefault(name, []).append(node)
        elif not _is_no_code(node):
            self._add_compound(node)

    def _add_compound(self, node: ast.stmt) -> None:
        """A statement that runs on import; what it binds stands for all of such statements."""
        self.definitions.setdefault(STATEMENTS, []).append(node)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import | ast.ImportFrom):
                self.imports.update(import_targets(inner, self.package))


def _assigned(node: ast.stmt) -> list[str]:
    """Names that a plain assignment binds; none for any other statement."""
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    else:
        return []
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [e.id for e in flat] if all(isinstance(e, ast.Name) for e in flat) else []


def _says_no(node: ast.stmt, names: list[str]) -> bool:
    return names == ["__computes__"] and getattr(node.value, "value", None) is False


def _is_no_code(node: ast.stmt) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or is_guarded(node, "__name__") or is_guarded(node, "TYPE_CHECKING")


class Modules:
    """The modules of the package in `root`, each parsed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root.name
        self.module = functools.cache(self._module)
        self.data_files = functools.cache(self._data_files)

    def _module(self, name: str) -> Module | None:
        if name != self.package and not name.startswith(self.package + "."):
            return None
        base = self.root.joinpath(*name.split(".")[1:])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                module = Module(name, path)
                for node in ast.parse(path.read_text(encoding="utf-8")).body:
                    module.add(node)
                parent = self.module(name.rpartition(".")[0])
                module.computes = module.computes and (parent is None or parent.computes)
                return module
        return None

    def is_logger(self, target: Target) -> bool:
        """Whether a name is bound to a `logging.getLogger(...)`."""
        module = None if target.is_library else self.module(target.module)
        nodes = module.definitions.get(target.name, ()) if module else ()
        values = [getattr(node, "value", None) for node in nodes]
        return bool(values) and all(
            isinstance(value, ast.Call) and chain_of(value.func) == ("logging", "getLogger")
            for value in values
        )

    def below(self, package: str) -> list[Module]:
        """A package, the modules in it and the packages in it, but not what is in those."""
        module = self.module(package)
        if module is None or not module.is_package:
            return []
        folder = module.path.parent
        files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
        names = [p.relative_to(self.root.parent).with_suffix("").as_posix() for p in files]
        return [self.module(n.replace("/", ".").removesuffix(".__init__")) for n in sorted(names)]

    def _data_files(self, folder: Path) -> dict[str, list[Path]]:
        """The data files beside a module: by their name, and by that of a folder without code."""
        files = {p.name: [p] for p in _data_in(folder)}
        for inner in folder.iterdir():
            if inner.is_dir() and not list(inner.glob("*.py")) and (inside := _data_in(inner)):
                files[inner.name] = inside
        return files

    def resolve(self, module: Module, chain: Chain) -> Target | None:
        """What a dotted name in `module` stands for; None for builtins and names of no import.

        Where the first part holds a colon it is the target of a local import.
        """
        first, *rest = chain
        if ":" in first:
            return self.follow(first, rest)
        if first in module.definitions:
            return Target(module.name, first)
        if first in module.imports:
            return self.follow(module.imports[first], rest)
        if "__getattr__" in module.definitions and chain == (first,) == ("__getattr__",):
            return Target(module.name, first)
        return None

    def follow(self, target: str, rest: Chain | list[str] = ()) -> Target:
        """What `module:name`, followed by further names, stands for."""
        place, _, name = target.partition(":")
        rest = [name, *rest] if name else list(rest)
        module = self.module(place)
        if module is None:
            return Target(place.split(".")[0] or self.package, is_library=True)
        if not rest:
            return Target(place)
        if rest[0] in module.definitions:
            return Target(place, rest[0])
        own = f"{place}:{rest[0]}"  # which a package may import by this name itself
        if (meant := module.imports.get(rest[0], own)) != own:
            return self.follow(meant, rest[1:])
        if self.module(f"{place}.{rest[0]}"):
            return self.follow(f"{place}.{rest[0]}:", rest[1:])
        return Target(place, "__getattr__" if "__getattr__" in module.definitions else STATEMENTS)


def _data_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _DATA_SUFFIXES)
