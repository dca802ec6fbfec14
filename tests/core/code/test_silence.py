"""What only says something is no code, also inside blocks; whatever else is in a block is."""

from pathlib import Path

import pytest

from distillery.core.code.reach import Reach

_MODULE = """
import logging
import warnings
from toy import texts
logger = logging.getLogger("toy")
{top}
def start(x, y, others):
    total = x + 1
{body}
    return total
"""


def _total(root: Path, body: str, top: str = "") -> str:
    package = root / str(len(list(root.iterdir()))) / "toy"
    package.mkdir(parents=True)
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    (package / "__init__.py").write_text(_MODULE.format(body=indented, top=top))
    (package / "texts.py").write_text("__computes__ = False\ndef say(*text):\n    return text\n")
    (package / "others.py").write_text("def work(x):\n    return x\n")
    return Reach(package).code(["toy:start"]).total


@pytest.mark.parametrize(
    "body",
    [
        "pass",
        "warnings.warn('odd')",
        "logger.warning('odd %d', x)",
        "if x:\n    print(x)",
        "if x > y + 1 and not others.quiet:\n    texts.say('high')",
        "if isinstance(x, int):\n    print(x)\nelif len(others) == 2:\n    logger.info('two')\n"
        "else:\n    pass",
        "if texts.say():\n    print(x)",
        "if x:\n    if y:\n        print(x)\n    texts.say(y)",
        "with texts.say('begins'):\n    print(x)",
        "try:\n    print(x)\nexcept OSError:\n    texts.say('no terminal')\nfinally:\n    pass",
    ],
)
def test_a_block_that_only_speaks_does_not_count(tmp_path: Path, body: str) -> None:
    assert _total(tmp_path, body) == _total(tmp_path, "")


@pytest.mark.parametrize(
    "body",
    [
        "if x:\n    print(x)\n    total = 2",
        "if x:\n    print(x)\nelse:\n    total = 2",
        "if others.pop():\n    print(x)",
        "if x in others[0]:\n    print(x)",
        "if (y := x):\n    print(x)",
        "if any(others):\n    print(x)",
        "with open(x):\n    print(x)",
        "with texts.say() as y:\n    print(x)",
        "try:\n    print(x)\nfinally:\n    total = 2",
        "try:\n    print(x)\nexcept OSError:\n    raise",
        "for y in others:\n    print(y)",
        "if x:\n    return logger.warning('odd')",
        "if x:\n    from toy import others\n    print(x)",
    ],
)
def test_a_block_that_does_more_counts(tmp_path: Path, body: str) -> None:
    assert _total(tmp_path, body) != _total(tmp_path, "")


@pytest.mark.parametrize(
    ("body", "reworded"),
    [
        ("if x:\n    total = 2", "if x:\n    print(x)\n    total = 2\n    texts.say(y)"),
        ("if x:\n    total = 2", "if x:\n    total = 2\nelse:\n    print(x)"),
        ("if others.pop():\n    pass", "if others.pop():\n    print(x)\n    print(y)"),
        ("for y in others:\n    total += y", "for y in others:\n    total += y\n    print(y)"),
        ("while y:\n    y = total", "while y:\n    y = total\n    if y:\n        print(y)"),
    ],
)
def test_what_is_said_beside_a_computation_leaves_no_trace(
    tmp_path: Path, body: str, reworded: str
) -> None:
    assert _total(tmp_path, body) == _total(tmp_path, reworded) != _total(tmp_path, "")


def test_a_block_of_a_module_may_speak_too(tmp_path: Path) -> None:
    plain = _total(tmp_path, "")
    assert _total(tmp_path, "", top="if __debug__:\n    print('checked')") == plain
    assert _total(tmp_path, "", top="if __debug__:\n    logger.setLevel(others())") == plain
    assert _total(tmp_path, "", top="if __debug__:\n    LIMIT = 3") != plain
