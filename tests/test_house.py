"""The sizes that the code keeps to: short functions, short files, few arguments."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "distillery"
FILES = sorted(SOURCE.rglob("*.py"))
MAX_ARGUMENTS, MAX_FILE_LINES, MAX_FUNCTION_LINES = 7, 250, 60
# Every argument is one that a user types, or an input, output or parameter of a stage.
TYPED = ("stages", "commands")
# Constructors with the arguments of torch's or diffusers' own.
MIRRORS = {
    "models/hadamard/conv.py: HadamardConv2d.__init__",
    "export/remote/student_controlnet.py: StudentControlNet.__init__",
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function]]:
    """Every function in a piece of code with its dotted name, nested ones too."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, Function)
        is_named = is_function or isinstance(child, ast.ClassDef)
        name = f"{prefix}{child.name}" if is_named else prefix
        if is_function:
            yield name, child
        yield from _functions(child, f"{name}." if is_named else prefix)


def _num_arguments(function: Function) -> int:
    """Arguments with `*args` and `**kwargs`, without `self` and `cls`."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    stars = [star for star in (given.vararg, given.kwarg) if star]
    return len([a for a in named if a.arg not in ("self", "cls")]) + len(stars)


def _all_functions() -> Iterator[tuple[Path, str, Function]]:
    for file in FILES:
        for name, function in _functions(ast.parse(file.read_text())):
            yield file.relative_to(SOURCE), name, function


def test_no_function_takes_more_than_seven_arguments():
    long = {
        f"{file.as_posix()}: {name}"
        for file, name, function in _all_functions()
        if _num_arguments(function) > MAX_ARGUMENTS
        and file.parts[0] not in TYPED
        and function.name != "forward"
    }
    assert long == MIRRORS


def test_no_function_is_longer_than_sixty_lines():
    long = {
        f"{file.as_posix()}: {name}"
        for file, name, function in _all_functions()
        if function.end_lineno - function.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def test_no_file_is_longer_than_250_lines():
    assert FILES
    sizes = {f.relative_to(SOURCE).as_posix(): len(f.read_text().splitlines()) for f in FILES}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


@pytest.mark.parametrize(
    ("code", "count"),
    [("def f(a, /, b, *c, d, **e): ...", 5), ("class A:\n def f(self, a=1): ...", 1)],
)
def test_arguments_of_every_kind_are_counted(code: str, count: int):
    (found,) = _functions(ast.parse(code))
    assert _num_arguments(found[1]) == count
