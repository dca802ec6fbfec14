"""Edits that change what the source says and not what it computes."""

import ast
from pathlib import Path


def reword(folder: Path) -> int:
    """Change every docstring and add comments in all modules below; returns how many there are."""
    files = list(folder.rglob("*.py"))
    for file in files:
        file.write_text(_reworded(file.read_text(encoding="utf-8")), encoding="utf-8")
    return len(files)


def _reworded(text: str) -> str:
    lines = text.splitlines()
    for node in sorted(_docstrings(ast.parse(text)), key=lambda node: -node.lineno):
        indent = " " * node.col_offset
        new = [f'{indent}"""Other words."""', f"{indent}# and a comment"]
        lines[node.lineno - 1 : node.end_lineno] = new
    return "\n".join(["# A comment at the top.", *lines, "", "# One at the end."]) + "\n"


def _docstrings(tree: ast.Module) -> list[ast.Expr]:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, holders)]
    return [n.body[0] for n in nodes if ast.get_docstring(n) is not None]
