"""Which definitions a stage's computation can reach, each with its hash.

In: modules and where to start. Out: {name: hash} of the definitions, data files and statements that
are reached, and the libraries that they import. A definition brings what it names; a class brings
its bases and all its methods; a module from which something is reached brings its statements that
define nothing (registrations) and those of the packages around it. Modules that say
`__computes__ = False` are left out. Not here: calls by a name that is put together while it runs,
unless its beginning is the name of a package: then all of the package counts.
"""

import functools
import hashlib
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distillery.core.artifacts import hash_file, hash_json
from distillery.core.code.modules import STATEMENTS, Module, Modules, Target
from distillery.core.code.scopes import Chain
from distillery.core.code.writing import Writer


@dataclass(frozen=True)
class Unit:
    """A definition: the hash of what it computes, what it names and which modules it runs."""

    hash: str
    needs: frozenset[Target]
    touches: frozenset[str]
    files: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Code:
    """What a stage's computation reaches."""

    hashes: dict[str, str]
    libraries: tuple[str, ...]

    @property
    def total(self) -> str:
        """One hash of all of it."""
        return hash_json(self.hashes)


class Reach:
    """Follows the names of one package; what is read once is kept."""

    def __init__(self, root: Path) -> None:
        self.modules = Modules(root)
        self._unit = functools.cache(self._read_unit)
        self._module_name = re.compile(rf"{self.modules.package}(\.\w+)+(:\w+)?")

    def code(self, starts: Iterable[str]) -> Code:
        """All that is reached from names like `distillery.stages.curate:curate`."""
        hashes: dict[str, str] = {}
        libraries: set[str] = set()
        todo = {self.modules.follow(start) for start in starts}
        while todo:
            target = todo.pop()
            if target.is_library:
                libraries.add(target.module)
                continue
            module = self.modules.module(target.module)
            if str(target) in hashes or not module.computes:
                continue
            unit = self._unit(target.module, target.name)
            hashes[str(target)] = unit.hash
            for path in unit.files:
                hashes[path.relative_to(self.modules.root.parent).as_posix()] = hash_file(path)
            todo |= unit.needs | {t for m in unit.touches for t in self._touched(m)}
        is_code = {name: value for name, value in hashes.items() if value}
        return Code(is_code, tuple(sorted(libraries - sys.stdlib_module_names)))

    def _touched(self, name: str) -> list[Target]:
        """What runs when a module is imported: its statements, and those of the packages around."""
        parts = name.split(".")
        around = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        return [Target(m, STATEMENTS) for m in around if self.modules.module(m)]

    def _read_unit(self, module_name: str, name: str | None) -> Unit:
        module = self.modules.module(module_name)
        if name is None:  # the module itself: all of it
            everything = {Target(module_name, n) for n in module.definitions}
            return Unit("", frozenset(everything), frozenset({module_name}))
        writer = Writer(module.package, functools.partial(self._is_silent, module))
        for node in module.definitions.get(name, ()):
            writer.write(node)
        return self._unit_of(module, writer)

    def _unit_of(self, module: Module, writer: Writer) -> Unit:
        chains = {chain: self.modules.resolve(module, chain) for chain in writer.uses}
        known = {chain: target for chain, target in chains.items() if target}
        needs = set(known.values()) | self._named(module, writer)
        meaning = sorted(f"{'.'.join(c)}={t}" for c, t in known.items() if self._counts(t))
        text = "\n".join([writer.text, *meaning])
        data = self.modules.data_files(module.path.parent)
        return Unit(
            hashlib.sha256(text.encode()).hexdigest() if writer.text else "",
            frozenset(needs),
            frozenset({module.name} | {t.partition(":")[0] for t in writer.imports}),
            frozenset(file for text in writer.strings for file in data.get(text, ())),
        )

    def _named(self, module: Module, writer: Writer) -> set[Target]:
        """What strings name: modules, names in them, and packages of which a part is chosen."""
        exact = [s for s in writer.strings if self._module_name.fullmatch(s)]
        targets = {self.modules.follow(s if ":" in s else f"{s}:") for s in exact}
        imports = any(chain[-1] == "import_module" for chain in writer.uses)
        for start in writer.beginnings if imports else ():
            place = f"{module.package}{start}" if start.startswith(".") else start
            targets |= {Target(inner.name) for inner in self.modules.below(place.rstrip("."))}
        return {t for t in targets if not t.is_library}

    def _counts(self, target: Target) -> bool:
        return target.is_library or self.modules.module(target.module).computes

    def _is_silent(self, module: Module, chain: Chain) -> bool:
        target = self.modules.resolve(module, chain)
        if target is None:
            return False
        return not self._counts(target) or self.modules.is_logger(target)
