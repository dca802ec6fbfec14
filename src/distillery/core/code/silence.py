"""Which statements only say something.

In: a statement of a syntax tree, and what tells of a call whether it is silent (computes nothing).
Out: whether leaving the statement out changes what is computed. Where in doubt it does: a condition
that calls, subscripts or binds anything counts. Not here: which calls are silent.
"""

import ast
from collections.abc import Callable

IsSilent = Callable[[ast.expr], bool]
_HARMLESS = {"isinstance", "len"}
_PLAIN = (
    ast.Attribute, ast.BinOp, ast.BoolOp, ast.Compare, ast.Constant, ast.IfExp, ast.Name, ast.Tuple,
    ast.UnaryOp, ast.boolop, ast.cmpop, ast.expr_context, ast.operator, ast.unaryop,
)  # fmt: skip


def computes_nothing(node: ast.AST, is_silent: IsSilent) -> bool:
    """Whether a statement is a text, `pass`, a silent call, or a block that holds nothing else."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or is_silent(node.value)
    if isinstance(node, ast.If):
        return _has_no_effect(node.test, is_silent) and _are_empty(node, is_silent)
    if isinstance(node, ast.With):
        opened = all(i.optional_vars is None and is_silent(i.context_expr) for i in node.items)
        return opened and _are_empty(node, is_silent)
    if isinstance(node, ast.Try | ast.TryStar):
        return all(_are_empty(part, is_silent) for part in (node, *node.handlers))
    return isinstance(node, ast.Pass)


def _are_empty(block: ast.AST, is_silent: IsSilent) -> bool:
    bodies = (getattr(block, name, []) for name in ("body", "orelse", "finalbody"))
    return all(computes_nothing(node, is_silent) for body in bodies for node in body)


def _has_no_effect(node: ast.AST, is_silent: IsSilent) -> bool:
    if isinstance(node, ast.Call):
        if is_silent(node):
            return True
        known = isinstance(node.func, ast.Name) and node.func.id in _HARMLESS
        return known and all(_has_no_effect(argument, is_silent) for argument in node.args)
    inner = ast.iter_child_nodes(node)
    return isinstance(node, _PLAIN) and all(_has_no_effect(part, is_silent) for part in inner)
