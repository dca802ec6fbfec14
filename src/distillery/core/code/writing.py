"""A definition's syntax tree as text without what computes nothing, and the names that it uses.

In: a statement of a module. Out: text that is equal for definitions that compute the same way, the
dotted names that are read from outside, and the strings in it. Left out: docstrings, annotations
(but those of class bodies, which dataclasses read), messages of `raise` and `assert`, `print`, what
progress bars are told, and statements that only call what computes nothing, alone or in an `if`,
`with` or `try` that holds nothing else. Not here: what a name stands for.
"""

import ast
import functools
from collections.abc import Callable

from distillery.core.code.scopes import (
    FUNCTIONS,
    Chain,
    Scope,
    chain_of,
    import_targets,
    is_guarded,
    names_bound,
    names_of_arguments,
)  # fmt: skip
from distillery.core.code.silence import computes_nothing

_SKIPPED = {"ctx", "kind", "type_comment", "returns"}
_SAYING = {("print",), ("warnings", "warn"), ("warnings:", "warn")}
_BARS = {"progress"}  # methods that make a progress bar: what they are told is text


class Writer:
    """Writes statements one after the other; `text` and the sets say what there was.

    `is_silent` tells of a dotted name (what a local import stands for in place of its first part)
    whether calling it computes nothing. `uses` holds such names too, `imports` what is imported
    locally, `beginnings` how strings begin that are put together when the code runs.
    """

    def __init__(self, package: str, is_silent: Callable[[Chain], bool]) -> None:
        self._package, self._is_silent = package, is_silent
        self._parts: list[str] = []
        self._scopes: list[Scope] = []
        self._class: ast.ClassDef | None = None
        self.uses: set[Chain] = set()
        self.imports: set[str] = set()
        self.strings: set[str] = set()
        self.beginnings: set[str] = set()

    @property
    def text(self) -> str:
        """What was written."""
        return "".join(self._parts)

    def write(self, node: ast.AST) -> None:
        """Append a node, unless it computes nothing."""
        if not computes_nothing(node, self._is_said):
            _writing(type(node))(self, node)

    def _write_fields(self, node: ast.AST, skipped: set[str] = _SKIPPED) -> None:
        self._parts.append(type(node).__name__ + "(")
        for field in node._fields:
            value = self._without_silent(getattr(node, field, None))
            if field not in skipped and value is not None and value != []:
                self._parts.append(field + "=")
                self._write_value(value)
        self._parts.append(")")

    def _without_silent(self, value: object) -> object:
        """Of a list of statements those that compute, so that one of the others leaves no trace."""
        if not isinstance(value, list):
            return value
        return [item for item in value if not computes_nothing(item, self._is_said)]

    def _write_value(self, value: object) -> None:
        if isinstance(value, list):
            self._parts.append("[")
            for item in value:
                self._write_value(item)
                self._parts.append(",")
            self._parts.append("]")
        elif isinstance(value, ast.AST):
            self.write(value)
        else:
            self._parts.append(repr(value))

    def _write_body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.write(statement)

    # names

    def _use(self, chain: Chain) -> None:
        if outside := self._outside(chain):
            self.uses.add(outside)

    def _outside(self, chain: Chain) -> Chain | None:
        """The name with a local import replaced by what it stands for; None for other locals."""
        for scope in reversed(self._scopes):
            if chain[0] in scope:
                target = scope[chain[0]]
                return (target, *chain[1:]) if target else None
        return chain

    def _write_name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self._use((node.id,))
        self._parts.append(f"Name({node.id})")

    def _write_attribute(self, node: ast.Attribute) -> None:
        if chain := chain_of(node):
            self._use(chain)
            self._parts.append(f"Name({'.'.join(chain)})")
        else:
            self._write_fields(node)

    def _write_constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.strings.add(node.value)
        self._parts.append(f"Constant({node.value!r})")

    def _write_joinedstr(self, node: ast.JoinedStr) -> None:
        if node.values and isinstance(node.values[0], ast.Constant):
            self.beginnings.add(node.values[0].value)
        self._write_fields(node)

    # statements that say and do not compute

    def _is_said(self, node: ast.expr) -> bool:
        chain = chain_of(node.func) if isinstance(node, ast.Call) else None
        outside = self._outside(chain) if chain else None
        return outside is not None and (outside in _SAYING or self._is_silent(outside))

    def _write_raise(self, node: ast.Raise) -> None:
        error = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
        self._parts.append(f"Raise({ast.unparse(error) if error else ''})")

    def _write_assert(self, node: ast.Assert) -> None:
        self._write_fields(node, {"msg"})

    def _write_call(self, node: ast.Call) -> None:
        is_bar = isinstance(node.func, ast.Attribute) and node.func.attr in _BARS
        self._write_fields(node, {"args", "keywords"} if is_bar else _SKIPPED)

    # definitions and their scopes

    def _write_functiondef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._write_decorators(node)
        self._parts.append(f"{type(node).__name__}({node.name},")
        self.write(node.args)
        with_local = names_of_arguments(node.args) | names_bound(node.body, self._package)
        self._within(with_local, lambda: self._write_body(node.body))
        self._parts.append(")")

    _write_asyncfunctiondef = _write_functiondef

    def _write_lambda(self, node: ast.Lambda) -> None:
        self._parts.append("Lambda(")
        self.write(node.args)
        self._within(names_of_arguments(node.args), lambda: self.write(node.body))
        self._parts.append(")")

    def _write_comprehension_of(self, node: ast.ListComp) -> None:
        names = (n for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name))
        self.write(node.generators[0].iter)  # read outside
        self._within(dict.fromkeys(n.id for n in names), lambda: self._write_fields(node))

    _write_listcomp = _write_setcomp = _write_dictcomp = _write_comprehension_of
    _write_generatorexp = _write_comprehension_of

    def _within(self, scope: Scope, write: Callable[[], None]) -> None:
        outer, self._class = self._class, None
        self._scopes.append(scope)
        write()
        self._scopes.pop()
        self._class = outer

    def _write_arg(self, node: ast.arg) -> None:
        self._parts.append(f"arg({node.arg})")

    def _write_decorators(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            chain = chain_of(decorator.func if isinstance(decorator, ast.Call) else decorator)
            outside = self._outside(chain) if chain else None
            if outside is None or not self._is_silent(outside):
                self._parts.append("@")
                self.write(decorator)
                if chain and chain[-1] == "register" and isinstance(node, FUNCTIONS):
                    for argument in node.args.args:  # a singledispatch reads the annotation
                        self._write_value(argument.annotation)

    def _write_classdef(self, node: ast.ClassDef) -> None:
        self._write_decorators(node)
        self._parts.append(f"ClassDef({node.name},")
        self._write_value([*node.bases, *node.keywords])
        outer, self._class = self._class, node
        self._write_body([n for n in node.body if not isinstance(n, FUNCTIONS)])
        methods = [n for n in node.body if isinstance(n, FUNCTIONS)]
        self._write_body(sorted(methods, key=lambda method: method.name))
        self._class = outer
        self._parts.append(")")

    def _write_annassign(self, node: ast.AnnAssign) -> None:
        if self._class is not None:
            self._parts.append(f"field({ast.unparse(node.annotation)})")
            if not any("dataclass" in ast.dump(d) for d in self._class.decorator_list):
                self.write(node.annotation)
            self.write(node.target)
            if node.value:
                self.write(node.value)
        elif node.value:  # as if it had none
            self._write_fields(ast.Assign(targets=[node.target], value=node.value))

    def _write_if(self, node: ast.If) -> None:
        if is_guarded(node, "TYPE_CHECKING"):
            self._write_body(node.orelse)
        else:
            self._write_fields(node)

    def _write_import(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, target in import_targets(node, self._package):
            self.imports.add(target)
            self._parts.append(f"import({name},{target})")

    _write_importfrom = _write_import


@functools.cache
def _writing(kind: type) -> Callable[[Writer, ast.AST], None]:
    return getattr(Writer, f"_write_{kind.__name__.lower()}", Writer._write_fields)
