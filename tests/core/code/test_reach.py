"""What a definition reaches, in a package of a few lines."""

from collections.abc import Callable
from pathlib import Path

import pytest

from distillery.core.code.reach import Code, Reach

FILES = {
    "__init__.py": "",
    "main.py": """
from toy import texts
from toy.shapes import Square
from toy.tools import helper, unused
import toy.tools as t

def start(x: int) -> float:
    '''Words.'''
    from toy.later import late
    if x < 0:
        raise ValueError(f"{unused(x)} is below zero")
    print("starts", unused(x))
    texts.say("hello")
    return late(t.LIMIT) + Square(x).area() + sum(helper(y) for y in range(x))
""",
    "texts.py": "__computes__ = False\ndef say(text):\n    print(text)\n",
    "tools.py": """
import numpy as np
LIMIT: int = 3
Alias = dict[str, int]
TABLE = "table.yaml"
def helper(y: Alias) -> int:
    return np.square(y) + len(TABLE)
def unused(x):
    return x
""",
    "table.yaml": "a: 1\n",
    "other.yaml": "a: 1\n",
    "later.py": """
from toy.registry import add
def late(limit):
    return limit * KINDS["a"]
KINDS = {}
add(KINDS)
if __name__ == "__main__":
    print(late(1))
""",
    "registry.py": """
def add(kinds):
    kinds["a"] = 1
""",
    "shapes.py": """
import torch
class Shape:
    def area(self):
        return self.side ** 2
class Square(Shape):
    def __init__(self, side):
        self.side = side
def draw():
    return torch.zeros(1)
""",
}


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., Code]:
    """Its code, with texts replaced in its files."""
    numbers = iter(range(100))

    def code(edits: dict[str, tuple[str, str]] | None = None) -> Code:
        root = tmp_path / str(next(numbers)) / "toy"
        root.mkdir(parents=True)
        for name, text in FILES.items():
            old, new = (edits or {}).get(name, ("", ""))
            assert old in text
            (root / name).write_text(text.replace(old, new, 1) if old else text)
        return Reach(root).code(["toy.main:start"])

    return code


def test_what_is_reached(toy: Callable[..., Code]) -> None:
    code = toy()
    assert set(code.hashes) == {
        "toy.main:start", "toy.tools:helper", "toy.tools:LIMIT", "toy.tools:TABLE",
        "toy/table.yaml", "toy.later:late", "toy.later:KINDS", "toy.later:", "toy.registry:add",
        "toy.shapes:Shape", "toy.shapes:Square",
    }  # fmt: skip
    assert code.libraries == ("numpy",)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main.py", "Words.", "Other words."),
        ("main.py", "x: int) -> float", "x: float) -> int"),
        ("main.py", "is below zero", "is negative"),
        ("main.py", '"starts", ', '"begins", 1, '),
        ("main.py", 'say("hello")', 'say("good day")'),
        ("main.py", "return late(t.LIMIT) + ", "return (  # why\n        late(t.LIMIT)) + "),
        ("texts.py", "print(text)", "print(text.upper())"),
        ("tools.py", "    return x", "    return x + 1"),
        ("tools.py", "LIMIT: int = 3", "LIMIT: float = 3"),
        ("tools.py", "dict[str, int]", "dict[str, float]"),
        ("later.py", "print(late(1))", "print(late(2))"),
        ("shapes.py", "zeros", "ones"),
        ("other.yaml", "1", "2"),
    ],
)  # fmt: skip
def test_what_does_not_count(toy: Callable[..., Code], file: str, old: str, new: str) -> None:
    assert toy({file: (old, new)}).total == toy().total


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("main.py", "x < 0", "x <= 0"),
        ("tools.py", "LIMIT: int = 3", "LIMIT: int = 4"),
        ("tools.py", "np.square", "np.sqrt"),
        ("tools.py", "import numpy as np", "import torch as np"),
        ("table.yaml", "1", "2"),
        ("later.py", "add(KINDS)", "add(KINDS)\nadd(KINDS)"),
        ("registry.py", "= 1", "= 2"),
        ("shapes.py", "** 2", "** 3"),
        ("main.py", "import helper, unused", "import unused as helper, unused"),
    ],
)  # fmt: skip
def test_what_counts(toy: Callable[..., Code], file: str, old: str, new: str) -> None:
    assert toy({file: (old, new)}).total != toy().total


def test_the_order_of_definitions_does_not_count(tmp_path: Path) -> None:
    totals = []
    for number, parts in enumerate((("a", "b"), ("b", "a"))):
        root = tmp_path / str(number) / "toy"
        root.mkdir(parents=True)
        body = {"a": "def a():\n    return b()\n", "b": "def b():\n    return 1\n"}
        (root / "__init__.py").write_text("".join(body[part] for part in parts))
        totals.append(Reach(root).code(["toy:a"]).total)
    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    "call",
    [
        'import_module("toy.plugins.one").run()',
        'import_module(f"toy.plugins.{kind}").run()',
        'import_module(f".plugins.{kind}", __package__).run()',
        'load("toy.plugins.one:run")',
    ],
)
def test_modules_chosen_by_name_count(tmp_path: Path, call: str) -> None:
    root = tmp_path / "toy"
    (root / "plugins").mkdir(parents=True)
    (root / "__init__.py").write_text(
        f"from importlib import import_module\ndef start(kind):\n    {call}\n"
    )
    (root / "plugins" / "__init__.py").write_text("")
    (root / "plugins" / "one.py").write_text("def run():\n    return 1\n")
    assert "toy.plugins.one:run" in Reach(root).code(["toy:start"]).hashes


def test_a_name_of_the_function_itself_reaches_nothing(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    root.mkdir()
    (root / "__init__.py").write_text(
        "def area():\n    return 1\n"
        "def start(area):\n    return [area for area in (area,)]\n"
        "def other(x):\n    return area() + (lambda area: area)(x)\n"
    )
    reach = Reach(root)
    assert set(reach.code(["toy:start"]).hashes) == {"toy:start"}
    assert set(reach.code(["toy:other"]).hashes) == {"toy:other", "toy:area"}
