"""All tensors in nested lists, mappings and dataclasses, changed or listed.

In: a tree of them. Out: the same tree of other tensors, or the tensors in order.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


def mapped(tree: T, change: Callable[[Tensor], Tensor]) -> T:
    """The same lists, mappings and dataclasses with `change` of every tensor in them."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return type(tree)({name: mapped(value, change) for name, value in tree.items()})
    if isinstance(tree, list | tuple):
        return type(tree)([mapped(value, change) for value in tree])
    if dataclasses.is_dataclass(tree):
        fields = (field.name for field in dataclasses.fields(tree) if field.init)
        changed = {name: mapped(getattr(tree, name), change) for name in fields}
        return dataclasses.replace(tree, **changed)
    return tree


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors of a tree, in order."""
    found: list[Tensor] = []
    mapped(tree, lambda tensor: found.append(tensor) or tensor)
    return found
