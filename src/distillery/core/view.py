"""Settings restricted to what was declared: anything else is a bug, loudly.

In: an object with attributes (or a mapping) at any depth, and dotted keys. Out: what looks the same
and gives the declared keys only. A section of which all is declared is given as it is. This module
does not know what the settings are.
"""

from collections.abc import Iterable, Mapping
from typing import Any


class UndeclaredError(AttributeError):
    """A key was read that is not among the declared ones."""


def restrict(settings: Any, keys: Iterable[str]) -> Any:
    """A view of `settings` that gives the declared dotted keys and what is below them.

    Raises UndeclaredError, later, where another key is read.
    """
    return _View(settings, {tuple(key.split(".")) for key in keys}, ())


class _View:
    """A section of which only parts are declared."""

    def __init__(self, section: Any, keys: set[tuple[str, ...]], path: tuple[str, ...]) -> None:
        self.__dict__.update(_section=section, _keys=keys, _path=path)

    def __getattr__(self, name: str) -> Any:
        value = self._take(name)
        return getattr(self._section, name) if value is _ALL else value

    def __getitem__(self, name: str) -> Any:
        value = self._take(name)
        return self._section[name] if value is _ALL else value

    def _take(self, name: str) -> Any:
        """A view of a section, or `_ALL` where all of it is declared."""
        path = (*self._path, str(name))
        if path in self._keys:
            return _ALL
        below = {key for key in self._keys if key[: len(path)] == path}
        if not below:
            raise UndeclaredError(f"{'.'.join(path)!r} is not in this stage's reads")
        is_named = isinstance(self._section, Mapping)
        inner = self._section[name] if is_named else getattr(self._section, name)
        return _View(inner, below, path)

    def _refuse(self, *_: Any) -> Any:
        here = ".".join(self._path) or "the params"
        raise UndeclaredError(f"all of {here} is read, but only parts are in this stage's reads")

    __iter__ = __len__ = __contains__ = __eq__ = __setattr__ = _refuse
    __hash__ = None


_ALL = object()
