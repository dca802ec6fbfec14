"""Names in a syntax tree: what an import binds, what a function binds itself.

In: nodes of a syntax tree. Out: names. What an import stands for is written `module:` for a module
and `module:name` for a name in it. Not here: looking anything up.
"""

import ast
from collections.abc import Iterator

Chain = tuple[str, ...]  # `np.linalg.norm` is ("np", "linalg", "norm")
Scope = dict[str, str | None]  # local names; of those bound by an import, what they stand for
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_NAMED = (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
_OWN_SCOPE = (
    *FUNCTIONS, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
)  # fmt: skip
_BIND_NOTHING_INSIDE = (*_OWN_SCOPE, ast.Name, ast.Constant)


def import_targets(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, str]]:
    """(name that it binds, what it stands for); `package` is what relative imports start from."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield alias.asname or alias.name, f"{module}:{alias.name}"
        elif alias.asname:
            yield alias.asname, f"{alias.name}:"
        else:
            first = alias.name.split(".")[0]
            yield first, f"{first}:"


def chain_of(node: ast.expr) -> Chain | None:
    """The dotted name that an expression is, or None."""
    names = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def is_guarded(node: ast.stmt, name: str) -> bool:
    """Whether a statement is `if NAME: ...` or `if NAME == ...: ...`."""
    if not isinstance(node, ast.If):
        return False
    chain = chain_of(node.test.left if isinstance(node.test, ast.Compare) else node.test)
    return chain is not None and chain[-1] == name


def names_of_arguments(node: ast.arguments) -> Scope:
    """The arguments of a function."""
    every = [*node.posonlyargs, *node.args, *node.kwonlyargs, node.vararg, node.kwarg]
    return {argument.arg: None for argument in every if argument is not None}


def names_bound(body: list[ast.stmt], package: str) -> Scope:
    """The names that a function binds itself, not those of functions in it."""
    scope: Scope = {}
    shared: set[str] = set()
    todo: list[ast.AST] = list(body)
    while todo:
        node = todo.pop()
        if isinstance(node, _IMPORTS):
            scope.update(import_targets(node, package))
        elif isinstance(node, ast.Global):
            shared.update(node.names)
        elif name := _bound_name(node):
            scope.setdefault(name)
        if not isinstance(node, _BIND_NOTHING_INSIDE):
            todo.extend(ast.iter_child_nodes(node))
    return {name: target for name, target in scope.items() if name not in shared}


def _bound_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return None if isinstance(node.ctx, ast.Load) else node.id
    if isinstance(node, _NAMED):
        return node.name
    return node.rest if isinstance(node, ast.MatchMapping) else None
