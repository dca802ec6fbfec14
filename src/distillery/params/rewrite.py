"""A params file with other values in the same text.

In: the text of a params file and the values that it shall hold. Out: a text whose lines, comments
and layout are those of the old one wherever the values are. New values are written in YAML that
YAML 1.1 and 1.2 read alike.
"""

from collections.abc import Mapping
from typing import Any

import yaml

Edit = tuple[int, int, str]
"""Characters [start, end) of the text and what comes in their place."""


def rewrite(text: str, values: Mapping[str, Any]) -> str:
    """`text`, a block mapping of sections, with `values`; keys that it lacks are left out."""
    edits = sorted(_edits(yaml.compose(text, Loader=yaml.SafeLoader), values, text))
    for start, end, new in reversed(edits):
        text = text[:start] + new + _aligned(text[end:], len(new) - (end - start), new)
    return text


def dump(value: Any) -> str:
    """A value on one line."""
    line = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**9
    )
    return line.removesuffix("\n").removesuffix("\n...")


def _edits(node: yaml.Node, value: Any, text: str) -> list[Edit]:
    """What to change below a mapping with these keys."""
    edits: list[Edit] = []
    for name, child in node.value:
        wanted = value[name.value]
        if _same(child, wanted):
            continue
        if isinstance(child, yaml.MappingNode) and _has_keys(child, wanted):
            edits += _edits(child, wanted, text)
        elif isinstance(child, yaml.MappingNode) and not child.flow_style and wanted:
            edits.append(_block(child, wanted, text))
        else:
            edits.append((name.end_mark.index, _end(child), f": {dump(wanted)}"))
    return edits


def _block(node: yaml.MappingNode, wanted: Mapping[str, Any], text: str) -> Edit:
    """Entries that stay keep their lines; new ones get one each."""
    kept = {
        name.value: text[name.start_mark.index : _line_end(text, _end(child))]
        for name, child in node.value
        if name.value in wanted and _same(child, wanted[name.value])
    }
    indent = "\n" + " " * node.start_mark.column
    lines = [kept.get(name, f"{dump(name)}: {dump(value)}") for name, value in wanted.items()]
    return node.start_mark.index, _line_end(text, _end(node)), indent.join(lines)


def _same(node: yaml.Node, value: Any) -> bool:
    """Whether a node has this value; 1 is not true, and the order of entries counts."""
    return dump(_value(node)) == dump(value)


def _value(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_document(node)


def _has_keys(node: yaml.MappingNode, value: Any) -> bool:
    keys = [name.value for name, _ in node.value]
    return isinstance(value, Mapping) and bool(keys) and set(keys) == set(value)


def _end(node: yaml.Node) -> int:
    """Where the text of a node ends; a block's own mark lies after what follows it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.index


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _aligned(rest: str, longer: int, new: str) -> str:
    """What follows on a changed line, its comment in the old column where there is room."""
    spaces = len(rest) - len(rest.lstrip(" "))
    if "\n" in new or rest[spaces : spaces + 1] != "#":
        return rest
    return " " * max(1, spaces - longer) + rest[spaces:]
